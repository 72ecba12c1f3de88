"""snnTorch modules of a network (Eshraghian et al., Proceedings of the IEEE 2023), with the same spikes.

snnTorch's ``Leaky`` computes ``mem = beta mem + x`` and fires at ``mem > threshold``. With ``reset_delay=False`` it is
reset to zero in the same step, as here; by subtraction it would then reset twice what stays above the threshold, so
that kind is late there, as by default. Its comparison is not ours: a threshold of the next smaller float64 makes ``>``
of ``>=``. ``Synaptic`` lets a current act in the step it arrives, our CubaLIF one step later: populations of the model
are early by a latency, as in NIR files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from snnsim.errors import InputError, MissingLibraryError
from snnsim.network import Network, Population, Projection
from snnsim.neurons import StepParameters

__all__ = ["SnnTorchChain", "to_snntorch"]

Floats = npt.NDArray[np.float64]

NEVER_FIRES = 1e300
"""Threshold of an integrator."""


class SnnTorchChain(nn.Module):
    """Linear layers and snnTorch neurons, one after the other, float64.

    The neurons keep their state outside (``init_hidden=False``), so that no call leaves anything behind.

    Attributes:
        layers: ``nn.ModuleList`` of ``nn.Linear`` and snnTorch neurons in turn.
        names: Names of the populations, in order.
        latency: Steps by which each population is ahead of the network.
    """

    def __init__(self, layers: list[nn.Module], names: list[str], latency: dict[str, int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.sizes = [int(layer.out_features) for layer in layers[::2] if isinstance(layer, nn.Linear)]
        self.names = names
        self.latency = latency

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run a sequence from the state zero.

        Args:
            x: Counts, shape (time, batch, unit).

        Returns:
            Spikes of every population, (time, batch, unit); of one without threshold, its membrane.
        """
        outputs: dict[str, torch.Tensor] = {}
        for index, name in enumerate(self.names):
            linear, neuron = self.layers[2 * index], self.layers[2 * index + 1]
            shape = (x.shape[1], self.sizes[index])
            variables = 2 if type(neuron).__name__ == "Synaptic" else 1
            state = [x.new_zeros(shape, dtype=torch.float64) for _ in range(variables)]
            silent = float(torch.as_tensor(neuron.threshold).max()) >= NEVER_FIRES
            steps = []
            for arrivals in linear(x.double()):
                spikes, *state = neuron(arrivals, *state)
                steps.append(state[-1] if silent else spikes.double())
            x = torch.stack(steps) if steps else x.new_zeros((0, *shape))
            outputs[name] = x
        return outputs


def to_snntorch(network: Network) -> SnnTorchChain:
    """Make a snnTorch model of a chain of populations without delays, with the same spikes.

    Populations of LIF and IF neurons become ``Leaky``, CubaLIF ``Synaptic``, LI and CubaLI a ``Leaky`` or ``Synaptic``
    that never fires. Parameters may differ from neuron to neuron. A reset by
    subtraction is snnTorch's own, one step late: ``reset_amount`` must be ``v_threshold / beta``.

    Args:
        network: A chain: each population has one projection, from the one before it (the input, for the first), all
            without delay, except that a delay of as many steps as a CubaLIF is late is part of it.

    Returns:
        The model; ``latency`` says how many steps earlier than in the network its spikes come.

    Raises:
        InputError: The network is not such a chain; the message names the population or projection.
        MissingLibraryError: snnTorch is not installed.
    """
    try:
        import snntorch
    except ImportError as error:
        raise MissingLibraryError("snntorch", "peers", "making a snnTorch model") from error
    if len(network.inputs) != 1:
        raise InputError(f"to_snntorch: expected one input, got {len(network.inputs)}")
    layers: list[nn.Module] = []
    names: list[str] = []
    latency: dict[str, int] = {}
    before = network.inputs[0].name
    for population in network.order():
        what = f"to_snntorch: population {population.name!r}"
        p = population.neuron.step(population.size, network.dt)
        _check(what, population, p)
        incoming = [item for item in network.projections if item.target == population.name]
        if [item.source for item in incoming] != [before]:
            raise InputError(f"{what}: expected one projection, from {before!r}; export to NIR instead")
        latency[population.name] = _latency(what, population, p, latency.get(before, 0))
        shift = latency.get(before, 0) - latency[population.name] + int(p.current)
        if np.any(incoming[0].synapses(network.dt).delay_steps + shift):
            raise InputError(f"to_snntorch: projection {incoming[0].name!r} has delays; export to NIR instead")
        scale = p.kappa if p.current else np.ones(population.size)
        bias = (p.drive_syn_step if p.current else p.drive_step) * scale
        layers += [_linear(incoming[0], network.dt, scale, bias), _neuron(snntorch, p)]
        names.append(population.name)
        before = population.name
    return SnnTorchChain(layers, names, latency)


def _check(what: str, population: Population, p: StepParameters) -> None:
    if population.neuron.kind not in ("IF", "LIF", "LI", "CubaLIF", "CubaLI"):
        raise InputError(f"{what}: {population.neuron.kind} cannot be given to snnTorch; use IF, LIF, CubaLIF or LI")
    if population.stop_step is not None or np.any(p.refractory_steps):
        raise InputError(f"{what}: stop and refractory steps have no place in snnTorch")
    if p.spiking and p.reset_zero and np.any(p.v_reset):
        raise InputError(f"{what}: snnTorch resets to 0, this population to v_reset = {p.v_reset.min():.6g}")
    if p.spiking and not p.reset_zero:
        late = np.divide(p.v_threshold, p.beta, out=np.full(p.beta.shape, np.inf), where=p.beta > 0)
        if not np.allclose(p.reset_amount, late, rtol=1e-12, atol=0.0):
            raise InputError(
                f"{what}: snnTorch takes the threshold off in the next step, after the decay: a reset_amount of "
                "v_threshold / beta here; with another it would reset twice what stays above the threshold"
            )
    if p.current and np.any(p.drive_step + p.drive_syn_to_v):
        raise InputError(f"{what}: snnTorch's Synaptic has no drive on its membrane; use one on the current")


def _latency(what: str, population: Population, p: StepParameters, before: int) -> int:
    """Return by how many steps the model's population is early, and refuse drives that do not start then."""
    latency = before + int(p.current)
    driven = np.any(p.drive_step) or np.any(p.drive_syn_step)
    starts = latency - int(p.current)
    if population.start_step > starts or (driven and population.start_step != starts):
        raise InputError(
            f"{what}: starts at step {population.start_step}, in snnTorch it would be step {starts} of the network"
        )
    return latency


def _linear(projection: Projection, dt: float, scale: Floats, bias: Floats) -> nn.Linear:
    s = projection.synapses(dt)
    source = np.repeat(np.arange(projection.shape[1]), np.diff(s.indptr))
    weight = np.zeros(projection.shape)
    np.add.at(weight, (s.target, source), s.weight)
    made = nn.Linear(projection.shape[1], projection.shape[0], bias=bool(np.any(bias))).double()
    made.weight.data = torch.from_numpy(weight * scale[:, None])
    if made.bias is not None:
        made.bias.data = torch.from_numpy(bias.copy())
    return made


def _neuron(snntorch: Any, p: StepParameters) -> nn.Module:
    def number(values: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float64))

    threshold = np.full(p.beta.shape, NEVER_FIRES)
    if p.spiking:
        threshold = p.v_threshold if p.strict else np.nextafter(p.v_threshold, -np.inf)
    reset = "none" if not p.spiking else "zero" if p.reset_zero else "subtract"
    late = reset == "subtract"
    options: dict[str, Any] = {"threshold": number(threshold), "reset_mechanism": reset, "reset_delay": late}
    if p.current:
        made = snntorch.Synaptic(alpha=number(p.alpha), beta=number(p.beta), **options)
    else:
        made = snntorch.Leaky(beta=number(p.beta), **options)
    return made  # type: ignore[no-any-return]
