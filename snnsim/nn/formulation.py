"""Which way a layer computes the same numbers: chosen before an epoch from sizes and from how full the data are.

Before the first epoch only the training data are known, so only the first layer can list its input's events; from the
second epoch on the firing rates of the epoch before say which hidden layers are sparse enough too. Nothing here looks
at a batch, a clock or the number of threads: a run that is repeated or resumed chooses the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

from snnsim.errors import InputError
from snnsim.nn.cuda import on_cuda
from snnsim.nn.delays import DelayedLinear, DelayFormulation, Formulation, Linear
from snnsim.nn.masks import MaskedWeights
from snnsim.nn.model import SpikingModel
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.trained import TrainedModel

__all__ = [
    "DELAY_SPARSE_DENSITY",
    "EVENT_DENSITY",
    "RECURRENT_SPARSE_DENSITY",
    "SPARSE_DENSITY",
    "Wish",
    "choose_formulations",
    "maskable_layers",
    "set_formulations",
]

EVENT_DENSITY = 0.2
"""Share of entries that are not zero below which listing them beats a dense product.

Measured by ``snnsim bench products``: product and weight gradient together take equally long at about 21 % for 1024
sources and targets and at 26 to 30 % for fewer.
"""

SPARSE_DENSITY = 0.35
"""Share of synapses that a mask has left below which products along them beat dense ones.

Measured by ``snnsim bench products``: product and both gradients together take equally long at 40 to 55 %; a first
layer, whose dense product is spared the gradient of its input, gains a little later.
"""

DELAY_SPARSE_DENSITY = 0.4
"""Share of pairs of neurons with a synapse below which a layer with delays trains along its synapses.

Measured by ``snnsim bench sparse``.
"""

RECURRENT_SPARSE_DENSITY = 0.15
"""Share of synapses below which recurrent weights with one delay train along their synapses.

Measured by ``snnsim bench sparse``.
"""

Wish = Literal["auto", "dense", "events"]
"""``auto`` chooses by density; the others hold for every connection without delays."""


def choose_formulations(
    model: TrainedModel, density: float, rates: Sequence[float] = (), wish: Wish = "auto"
) -> dict[str, str]:
    """Set how the model's connections compute, and return it by layer.

    Layers without delays, and the weight gradient of recurrent layers with one common delay, touch the events of
    their input only where these are few, else they use dense products. Layers with delays train in the frequency
    domain. Convolutions have one way only: a convolutional network has no choice.

    Below :data:`DELAY_SPARSE_DENSITY` a masked layer with delays, below :data:`RECURRENT_SPARSE_DENSITY` a recurrent
    one with one delay, go along the synapses that exist (``sparse``).

    A layer without delays whose mask has left fewer than :data:`SPARSE_DENSITY` of its synapses computes along these
    (``sparse``), unless its input is so empty that events take less: they spare two of the three dense products, all
    of them in the first layer.

    A model on a CUDA device has ``dense`` products and the ``frequency`` domain only, whatever its masks have left.

    Args:
        model: Model.
        density: Share of (step, channel) pairs of the training data that hold an event.
        rates: Spikes a neuron-step of every hidden layer, before dropout; empty while none are known.
        wish: ``dense`` or ``events`` for all connections without delays instead of the choice.

    Raises:
        InputError: The density is not a share, there is a number of rates that is not that of hidden layers, or events
            are wished for on a CUDA device.
    """
    if not 0 <= density <= 1:
        raise InputError(f"density: expected a share between 0 and 1, got {density!r}")
    if wish not in get_args(Wish):
        raise InputError(f"formulation: expected one of {', '.join(get_args(Wish))}, got {wish!r}")
    if len(rates) not in (0, len(model.hidden_sizes())):
        raise InputError(f"rates: expected one a hidden layer ({len(model.hidden_sizes())}), got {len(rates)}")

    if not isinstance(model, SpikingModel):
        return {}
    on_device = on_cuda(model.readout.connection.weight)
    if on_device and wish == "events":
        raise InputError("formulation: 'events' has no kernels on a CUDA device; use 'auto' or 'dense', or the CPU")

    def choice(share: float, module: Linear | Recurrent, first: bool) -> Formulation:
        if on_device:
            return "dense"
        if wish != "auto":
            return wish
        if isinstance(module, Recurrent):
            if module.density < RECURRENT_SPARSE_DENSITY:
                return "sparse"
            return "events" if share < EVENT_DENSITY else "dense"
        density = module.density if isinstance(module, MaskedWeights) else 1.0  # conductances have no mask
        sparse = density / SPARSE_DENSITY
        events = min(1.0, share / EVENT_DENSITY)
        if sparse < (events if first else (1 + 2 * events) / 3):
            return "sparse"
        return "events" if share < EVENT_DENSITY else "dense"

    fired = list(rates) or [1.0] * len(model.hidden_sizes())
    shares = [density]
    for rate, block in zip(fired, model.blocks, strict=True):
        kept = rate * (1 - _dropped(block)) if rates else 1.0
        shares.append(min(1.0, kept + shares[-1]) if block.residual else kept)
    chosen: dict[str, str] = {}
    for name, module, index in _connections(model):
        share = fired[index] if isinstance(module, Recurrent) else shares[index]
        if isinstance(module, DelayedLinear):
            few = wish == "auto" and not on_device and module.pair_density < DELAY_SPARSE_DENSITY
            chosen[name] = "sparse" if few else "frequency"
        else:
            chosen[name] = choice(share, module, index == 0)
    set_formulations(model, chosen)
    return chosen


def set_formulations(model: TrainedModel, chosen: Mapping[str, str]) -> None:
    """Set what :func:`choose_formulations` returned for this model or an equal one.

    What was chosen on the CPU may be set on a CUDA device: there ``sparse`` and ``events`` compute as ``dense`` and
    ``frequency`` do, until it is chosen again.

    Raises:
        InputError: The layers are others, or one of them cannot compute so.
    """
    known = {name: module for name, module, _ in _connections(model)} if isinstance(model, SpikingModel) else {}
    if set(known) != set(chosen):
        raise InputError(f"formulations: expected those of {', '.join(known)}, got {', '.join(chosen)}")
    for name, module in known.items():
        way = chosen[name]
        possible = get_args(DelayFormulation if isinstance(module, DelayedLinear) else Formulation)
        if way not in possible:
            raise InputError(f"formulations: {name}: expected one of {', '.join(possible)}, got {way!r}")
        module.formulation = cast(Any, way)


def _dropped(block: Any) -> float:
    return 0.0 if block.dropout is None else float(block.dropout.p)


def maskable_layers(model: TrainedModel) -> dict[str, MaskedWeights]:
    """Return the connections that can have a mask: ``layer1``, ``layer1 recurrence``, ..., ``readout``.

    A convolutional network has none: its weights are shared between places.
    """
    if not isinstance(model, SpikingModel):
        return {}
    found: dict[str, MaskedWeights] = {}
    for index, layer in enumerate(model.layers()):
        name = "readout" if layer is model.readout else f"layer{index + 1}"
        if isinstance(layer.connection, MaskedWeights):  # conductances have none
            found[name] = layer.connection
        if isinstance(layer.neuron, Recurrent):
            found[f"{name} recurrence"] = layer.neuron
    return found


def _connections(model: SpikingModel) -> list[tuple[str, Linear | DelayedLinear | Recurrent, int]]:
    """Return name, module and place of the layer, of every connection that has a formulation."""
    found: list[tuple[str, Linear | DelayedLinear | Recurrent, int]] = []
    for index, layer in enumerate(model.layers()):
        name = "readout" if layer is model.readout else f"layer{index + 1}"
        found.append((name, layer.connection, index))
        if isinstance(layer.neuron, Recurrent) and layer.neuron.has_kernel:
            found.append((f"{name} recurrence", layer.neuron, index))
    return found
