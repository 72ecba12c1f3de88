"""Lava ``.net`` files for Loihi 2: HDF5, read by the netx loader of lava-dl 0.6.0, one delay a synapse.

A layer is a group ``/layer/k`` (``k = 0`` the input) with ``weight`` and ``delay`` of shape ``(out, in)``, ``bias`` and
``neuron``. The field of a delay is the delay of the integer network less one: a dense layer adds a step of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.export import ExportReport
from snnsim.export.integer_meta import pack_meta, to_integers
from snnsim.files import atomic_path
from snnsim.integer_network import IntegerNetwork, IntegerProjection
from snnsim.network import Network

__all__ = ["SILENT", "write_lava"]

LONGEST = 62
"""Largest value of a delay field that the loader keeps."""

SILENT = 2**17 - 1
"""Threshold of an integrator: only a membrane at the very end of its 24 bits passes it."""

Small = npt.NDArray[np.int32]


def write_lava(
    network: Network | IntegerNetwork,
    path: str | Path,
    *,
    delays: Literal["refuse", "clamp"] = "refuse",
    scale: Literal["auto", "layer", "neuron"] = "auto",
    calibrate: Events | None = None,
) -> ExportReport:
    """Write a ``.net`` file.

    Args:
        network: A frozen network, quantised here with the profile ``loihi2``, or an integer network of law ``loihi2``:
            one input and a chain of layers.
        path: File to write, ``.net``.
        delays: Delays beyond the field are refused, or clamped and counted.
        scale: See :class:`snnsim.quantize.QuantizeOptions`.
        calibrate: Training events on which scales are chosen.

    Raises:
        InputError: The format cannot hold the network; the sentence says what and what to do.
    """
    whole = to_integers(network, "loihi2", "loihi2", delays, scale, calibrate)
    order = _chain(whole)
    layers = [_layer(whole, name, delays) for name in order]
    changes = list(whole.changes)
    for name, (_, _, clamped) in zip(order, layers, strict=True):
        if clamped:
            changes.append(f"{name}: {clamped} delays of more than {LONGEST + 1} steps were clamped to {LONGEST + 1}.")
        if not whole.population(name).spiking:
            changes.append(
                f"{name}: an integrator is written as a layer with the threshold {SILENT}, which only a membrane "
                "at the end of its range passes; its scores are read from the membrane."
            )
    import h5py

    with atomic_path(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        root = file.create_group("layer")
        first = root.create_group("0")
        first["type"] = np.array([b"input"], dtype="S10")
        first["shape"] = np.array([whole.inputs[0].size])
        for number, (name, (weight, delay, _)) in enumerate(zip(order, layers, strict=True)):
            item = whole.population(name)
            group = root.create_group(str(number + 1))
            group["type"] = np.array([b"dense"], dtype="S10")
            group["shape"] = np.array([item.size])
            group["inFeatures"], group["outFeatures"] = weight.shape[1], weight.shape[0]
            group["weight"], group["delay"] = weight, delay
            group["bias"] = item.parameters["bias"].astype(np.int32)
            neuron = group.create_group("neuron")
            neuron["type"] = np.array([b"CUBA"], dtype="S10")
            neuron["iDecay"] = int(item.parameters["i_decay"][0])
            neuron["vDecay"] = int(item.parameters["v_decay"][0])
            neuron["vThMant"] = int(item.parameters["v_threshold"][0]) if item.spiking else SILENT
            neuron["refDelay"], neuron["gradedSpike"] = 1, False
        file["snnsim"] = np.frombuffer(pack_meta(whole, order), np.uint8)
    latency = {name: -steps for name, steps in whole.latency.items()}
    return ExportReport("lava", Path(path), tuple(changes), latency)


def _chain(network: IntegerNetwork) -> list[str]:
    """Return the populations from the input on.

    Raises:
        InputError: The network is no chain, or its parameters differ inside a population.
    """
    if len(network.inputs) != 1:
        raise InputError(f"lava: expected one input, the network has {len(network.inputs)}; join them into one")
    order: list[str] = []
    at = network.inputs[0].name
    remaining = list(network.projections)
    while True:
        following = [item for item in remaining if item.source == at]
        if not following:
            break
        if len(following) > 1:
            raise InputError(
                f"lava: {at!r} feeds {', '.join(item.target for item in following)}; a .net file is written as a chain "
                "of dense layers without branches or recurrence (its recurrent layer holds one delay array for two "
                "matrices): train a feed-forward chain"
            )
        remaining.remove(following[0])
        at = following[0].target
        if at in order:
            raise InputError(f"lava: {at!r} is in a loop; train a feed-forward chain")
        order.append(at)
    left = [item.name for item in network.populations if item.name not in order]
    if left or remaining:
        raise InputError(f"lava: {', '.join(left) or remaining[0].name} is beside the chain from the input; remove it")
    for name in order:
        for key, values in network.population(name).parameters.items():
            if key != "bias" and np.ptp(values):
                raise InputError(
                    f"lava: population {name!r}: {key} differs from neuron to neuron ({values.min()} to "
                    f"{values.max()}); the file has one a layer: quantise with decays = 'mean', or scale = 'layer'"
                )
    return order


def _layer(network: IntegerNetwork, name: str, delays: str) -> tuple[Small, Small, int]:
    """Return weight and delay field ``(out, in)`` of the synapses into a population, and how many were clamped."""
    item: IntegerProjection = next(item for item in network.projections if item.target == name)
    weight = np.zeros((network.population(name).size, item.n_source), np.int32)
    field = np.zeros_like(weight)
    source = item.sources()
    pairs = np.unique(np.stack([item.unit, source]), axis=1).shape[1] if item.n_synapses else 0
    if pairs != item.n_synapses:
        raise InputError(
            f"lava: projection {item.name!r}: {item.n_synapses - pairs} synapses are parallel to another one; the file "
            "holds one synapse a pair: train one delay a synapse"
        )
    odd = np.flatnonzero(item.weight & 1)
    if odd.size:
        raise InputError(
            f"lava: projection {item.name!r}: {odd.size} weights are odd (first: {item.weight[odd[0]]}); the loader "
            "loses their lowest bit: quantise with the profile 'loihi2', which makes them even"
        )
    if not np.any(item.weight):
        raise InputError(f"lava: projection {item.name!r}: all weights are 0, which the loader cannot scale")
    beyond = int(np.count_nonzero(item.delay > LONGEST + 1))
    if beyond and delays != "clamp":
        raise InputError(
            f"lava: projection {item.name!r}: {beyond} delays of up to {item.delay.max()} steps; the file holds 1 to "
            f"{LONGEST + 1} (a field of 0 to {LONGEST}): train shorter delays, or export with delays = 'clamp'"
        )
    weight[item.unit, source] = item.weight
    field[item.unit, source] = np.minimum(item.delay, LONGEST + 1) - 1
    return weight, field, beyond
