"""From a frozen network back to a trainable model with the same evaluation spikes.

Positions restart at the rounded delays, and a drive (folded batch norm) becomes the connection's bias. Layers
that :func:`snnsim.nn.freeze.freeze` described in the network's notes get their old range of delays back.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from snnsim import neurons as records
from snnsim.errors import InputError
from snnsim.network import Network, Population, Projection, Sparse
from snnsim.neurons_stochastic import StochasticNeuron
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.levy_baxter import LevyBaxter
from snnsim.nn.meta import MetaNeuron, StochasticModule
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.nn.neurons_conductance import ConductanceLIF, ReceptorLinear
from snnsim.nn.neurons_meta_dynamic import MetaDynamicNeuron
from snnsim.nn.readouts import Reduce
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.surrogates import ATan, Surrogate

__all__ = ["thaw"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

TRAINABLE = (
    *("IF", "LIF", "LI", "CubaLIF", "CubaLI", "AdaptiveLIF"),
    *("MetaNeuron", "LevyBaxter", "MetaDynamicNeuron", "ConductanceLIF"),
)
"""Kinds of neurons that have a module."""


def _several(weight: Floats | Sparse) -> bool:
    """Return whether a pair of neurons has several synapses in a projection."""
    if not isinstance(weight, Sparse):
        return False
    pairs = np.asarray(weight.target, dtype=np.int64) * weight.shape[1] + weight.source
    return bool(np.unique(pairs).size < pairs.size)


FINAL_SIGMA = 0.23
"""Width of delay kernels that the notes do not know: the last value of the delay paper's schedule."""


def thaw(
    network: Network,
    *,
    dtype: torch.dtype = torch.float64,
    surrogate: Surrogate = ATan(5.0),  # noqa: B008 - immutable
) -> SpikingModel:
    """Return a model that computes in evaluation what ``network`` computes.

    Args:
        network: One input and a chain of populations that ends in a readout of membranes; recurrence within a
            population and residual connections are allowed.
        dtype: Precision of the parameters. float64 keeps every value; float32 rounds weights.
        surrogate: Stand-in for the derivative of the spike.

    Returns:
        A model in evaluation mode. Batch norm and dropout do not come back. Synapses that were missing from a
        population pair stay missing, by a mask, if the model that was frozen had one there; else they have weight 0
        and can grow.

    Raises:
        InputError: The network has another shape; the message names the population or projection.
    """
    return _Thawing(network, surrogate).model().to(dtype).eval()


class _Thawing:
    def __init__(self, network: Network, surrogate: Surrogate) -> None:
        self.network, self.surrogate, self.dt = network, surrogate, network.dt
        layers = network.notes.get("layers", [])
        known = [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
        self.notes: dict[str, dict[str, Any]] = {str(layer.get("population")): layer for layer in known}

    def model(self) -> SpikingModel:
        network = self.network
        if len(network.inputs) != 1:
            raise InputError(f"thaw: expected one input, got {len(network.inputs)}")
        readout = network.readout
        if readout is None or readout.variable != "v" or readout.reduce not in get_args(Reduce):
            raise InputError("thaw: expected a network whose readout reduces membranes over time")
        chain = self.chain()
        if chain[-1].name != readout.population:
            raise InputError(f"thaw: the readout {readout.population!r} is not the last population {chain[-1].name!r}")
        sources = [[network.inputs[0].name]]  # possible origins of what flows into the next population
        blocks: list[Block] = []
        connections = []
        for population in chain:
            self.check(population)
            incoming = self.incoming(population)
            found = [name for name in incoming if name != population.name]
            origins = next((names for names in sources if sorted(names) == sorted(found)), None)
            if origins is None:
                raise InputError(
                    f"thaw: population {population.name!r} has the sources {found}; expected {sources[0]}"
                    + (f" or, with a residual connection, {sources[1]}" if len(sources) > 1 else "")
                )
            if blocks:
                blocks[-1].residual = len(sources) > 1 and origins is sources[1]
            connection = self.connection(population, [incoming[name] for name in origins])
            connections.append(connection)
            if population is chain[-1]:
                break
            neuron: Any = self.neuron(population)
            if population.name in incoming:
                neuron = self.recurrent(population, neuron, incoming[population.name])
            blocks.append(Block(connection, neuron))
            sources = [[population.name]]
            if connection.n_in == connection.n_out:
                sources.append([*origins, population.name])
        last = chain[-1]
        record = self.neuron(last)
        if not isinstance(record, (LI, CubaLI)) or last.name in self.incoming(last):
            raise InputError(f"thaw: the readout {last.name!r} must be integrators without threshold and recurrence")
        block = ReadoutBlock(connections[-1], record, reduce=readout.reduce, skip_steps=readout.skip_steps)  # type: ignore[arg-type]
        tail = network.noted_steps("tail_steps")
        model = SpikingModel(blocks, block, dt=self.dt, tail_steps=tail)
        self.check_places(chain, blocks)
        return model

    def check_places(self, chain: list[Population], blocks: list[Block]) -> None:
        """Refuse random neurons that would draw other numbers in the model than they did in the network."""
        network = self.network
        for population, layer in zip(chain, blocks, strict=False):
            if not isinstance(layer.neuron, StochasticModule):
                continue
            numbers = [k for k, item in enumerate(network.projections) if item.target == population.name]
            several = any(_several(network.projections[k].weight) for k in numbers)
            first = layer.neuron.projection
            expected = list(range(first, first + len(numbers)))
            at = layer.neuron.population
            if several or numbers != expected or network.populations[at].name != population.name:
                raise InputError(
                    f"thaw: population {population.name!r} draws random numbers by its place in the network; expected "
                    f"it to be population {at} with projections of one synapse a pair at the places {expected}, got "
                    f"{'several synapses a pair' if several else f'places {numbers}'}"
                )

    def chain(self) -> list[Population]:
        """Return the populations from input to readout; loops within a population do not count."""
        before: dict[str, set[str]] = {item.name: set() for item in self.network.populations}
        for projection in self.network.projections:
            if projection.source in before and projection.source != projection.target:
                before[projection.target].add(projection.source)
        try:
            return [self.network.population(name) for name in TopologicalSorter(before).static_order()]
        except CycleError as error:
            raise InputError(f"thaw: a loop through several populations: {' -> '.join(error.args[1])}") from None

    def check(self, population: Population) -> None:
        if population.start_step or population.stop_step is not None:
            raise InputError(f"thaw: population {population.name!r} starts or stops at a step; a model cannot")
        if population.neuron.kind not in TRAINABLE:
            raise InputError(f"thaw: population {population.name!r}: {population.neuron.kind} has no trainable module")

    def incoming(self, population: Population) -> dict[str, list[Projection]]:
        """Return the projections into a population by source."""
        found: dict[str, list[Projection]] = {}
        for projection in self.network.projections:
            if projection.target == population.name:
                found.setdefault(projection.source, []).append(projection)
        return found

    def taps(self, projections: list[Projection]) -> tuple[Floats, Integers]:
        """Return weights and delays, both (n_target, n_source, taps); missing synapses are 0 with delay 0."""
        shape = projections[0].shape
        weights, delays = [], []
        for projection in projections:
            if isinstance(projection.weight, Sparse):
                weight, steps = self.sparse_taps(projection)
                if projection.delay_shape in ((1, shape[1]), (shape[0], 1)):  # missing synapses share it
                    steps = np.broadcast_to(projection.delay_steps(self.dt), shape)[:, :, None].astype(np.int64)
            else:
                steps = np.broadcast_to(projection.delay_steps(self.dt), shape)[:, :, None]
                weight = projection.weight[:, :, None]
            weights.append(weight)
            delays.append(steps)
        return np.concatenate(weights, axis=2), np.concatenate(delays, axis=2)

    def masks(self, projections: list[Projection]) -> npt.NDArray[np.bool_]:
        """Return which synapses are stored, bool, (n_target, n_source, taps); one sparse projection a tap."""
        found = []
        for projection in projections:
            mask = np.ones(projection.shape, bool)
            if isinstance(projection.weight, Sparse):
                mask[:] = False
                mask[projection.weight.target, projection.weight.source] = True
            found.append(mask)
        return np.stack(found, axis=2)

    def sparse_taps(self, projection: Projection) -> tuple[Floats, Integers]:
        s = projection.synapses(self.dt)
        source = np.repeat(np.arange(projection.shape[1]), np.diff(s.indptr))
        key = s.target.astype(np.int64) * projection.shape[1] + source
        order = np.argsort(key, kind="stable")
        sorted_key = key[order]
        tap = np.arange(key.size) - np.searchsorted(sorted_key, sorted_key)
        count = int(tap.max(initial=0)) + 1
        weight = np.zeros((*projection.shape, count))
        steps = np.zeros((*projection.shape, count), np.int64)
        place = (s.target[order], source[order], tap)
        weight[place], steps[place] = s.weight[order], s.delay_steps[order]
        return weight, steps

    def receptors(self, population: Population, groups: list[list[Projection]]) -> ReceptorLinear:
        """Return the connection to both receptors of a population with conductances."""
        name = population.name
        if len(groups) > 1:
            raise InputError(f"thaw: population {name!r} has several sources; a layer with conductances has one")
        made = ReceptorLinear(groups[0][0].shape[1], groups[0][0].shape[0]).double()
        for receptor, weights in (("exc", made.exc_weight), ("inh", made.inh_weight)):
            mine = [item for item in groups[0] if item.receptor == receptor]
            weight, steps = self.taps(mine) if mine else (np.zeros((*groups[0][0].shape, 1)), np.zeros(1, np.int64))
            if weight.shape[2] != 1 or steps.any():
                raise InputError(f"thaw: population {name!r}: synapses with conductances have one tap and no delay")
            weights.data = torch.from_numpy(weight[:, :, 0].copy())
        if np.any(np.asarray(population.neuron.parameters()["drive"])):
            raise InputError(f"thaw: population {name!r} has a drive; a layer with conductances has none")
        return made

    def connection(
        self, population: Population, groups: list[list[Projection]]
    ) -> Linear | DelayedLinear | ReceptorLinear:
        if isinstance(population.neuron, records.ConductanceLIF):
            return self.receptors(population, groups)
        weight, steps = self.taps(groups[0])
        for group in groups[1:]:
            again, steps_again = self.taps(group)
            if not (np.array_equal(weight, again) and np.array_equal(steps, steps_again)):
                raise InputError(
                    f"thaw: the projections into {population.name!r} differ between its sources; "
                    "a residual connection feeds all of them through one layer"
                )
        p = population.neuron.step(population.size, self.dt)
        drive = p.drive_syn_step if p.current else p.drive_step
        if p.current and (np.any(p.drive_step) or np.any(p.drive_syn_to_v)):
            raise InputError(f"thaw: population {population.name!r} has a drive on its membrane; only currents can")
        n_out, n_in, taps = weight.shape
        bias = bool(np.any(drive)) and not isinstance(population.neuron, StochasticNeuron)
        note = self.notes.get(population.name, {})
        made: Linear | DelayedLinear
        if taps == 1 and not steps.any() and note.get("kind") != "delayed":
            made = Linear(n_in, n_out, bias=bias).double()
            made.weight.data = torch.from_numpy(weight[:, :, 0].copy())
        else:
            made = self.delayed(note, groups[0], weight, steps, bias)
        if made.bias is not None:
            made.bias.data = torch.from_numpy(drive.copy())
        if note.get("masked") and taps == len(groups[0]):
            mask = self.masks(groups[0])
            made.set_mask(mask[:, :, 0] if isinstance(made, Linear) else mask)
        return made

    def delayed(
        self, note: dict[str, Any], projections: list[Projection], weight: Floats, steps: Integers, bias: bool
    ) -> DelayedLinear:
        n_out, n_in, taps = weight.shape
        dense = bool(note.get("masked")) or not any(isinstance(item.weight, Sparse) for item in projections)
        shapes = {item.delay_shape for item in projections}
        per = "synapse"
        if dense and shapes == {(1, n_in)} and n_out > 1:
            per, steps = "axon", steps[:1]
        elif dense and shapes == {(n_out, 1)} and n_in > 1:
            per, steps = "dendrite", steps[:, :1]
        made = DelayedLinear(
            n_in,
            n_out,
            max_delay_steps=max(1, int(steps.max(initial=0)), int(note.get("max_delay_steps", 0))),
            taps=taps,
            version=note.get("version", "gauss"),
            per=per,  # type: ignore[arg-type]
            learn_delay=bool(note.get("learn_delay", True)),
            sigma=float(note.get("sigma", FINAL_SIGMA)),
            init="zero",
            bias=bias,
        ).double()
        made.weight.data = torch.from_numpy(weight.copy())
        made.position.data = torch.from_numpy(made.n_delays // 2 - steps.astype(np.float64))
        return made

    def recurrent(self, population: Population, neuron: Any, projections: list[Projection]) -> Recurrent:
        weight, steps = self.taps(projections)
        if weight.shape[2] != 1:
            raise InputError(f"thaw: population {population.name!r} has {weight.shape[2]} recurrent synapses a pair")
        steps = np.where(weight == 0, max(1, int(steps.max(initial=1))), steps)[:, :, 0]
        if steps.min() < 1:
            raise InputError(f"thaw: population {population.name!r} has recurrent delays of 0 steps; a model needs 1")
        value: Any = int(steps.flat[0]) if np.all(steps == steps.flat[0]) else steps
        made = Recurrent(neuron, torch.from_numpy(weight[:, :, 0].copy()), delay_steps=value)
        if self.notes.get(population.name, {}).get("masked_recurrence"):
            made.set_mask(self.masks(projections)[:, :, 0])
        return made

    def neuron(self, population: Population) -> Any:
        """Return the module of a population; its drive is left to the connection."""
        record: records.Neuron = population.neuron
        p = record.step(population.size, self.dt)
        size = population.size
        if isinstance(record, records.ConductanceLIF):
            taus: dict[str, Any] = {
                name: getattr(record, name) for name in ("tau_mem", "tau_exc", "tau_inh", "e_exc", "e_inh")
            }
            levels: dict[str, Any] = {"v_threshold": record.v_threshold, "v_reset": record.v_reset}
            waiting: Any = _short(p.refractory_steps * self.dt)
            how: dict[str, Any] = {"solver": record.solver, "substeps": record.substeps, "surrogate": self.surrogate}
            return ConductanceLIF(size, dt=self.dt, t_ref=waiting, **taus, **levels, **how)
        if isinstance(record, records.MetaDynamicNeuron):
            thetas = {name: getattr(record, name) for name in ("theta_v", "theta_u", "theta_r", "theta_s", "v_floor")}
            return MetaDynamicNeuron(
                size,
                dt=self.dt,
                rate=_short(p.extra["rate"]),
                v_threshold=record.v_threshold,
                t_ref=_short(p.refractory_steps * self.dt),
                surrogate=self.surrogate,
                **thetas,
            )
        membrane: dict[str, Any] = {"dt": self.dt, "beta": _short(p.beta)}
        if isinstance(record, records.LI):
            return LI(size, **membrane)
        if isinstance(record, records.CubaLI):
            return CubaLI(size, **membrane, **_current(CubaLI, size, self.dt, p))
        firing: dict[str, Any] = {
            "v_threshold": _short(np.nextafter(p.v_threshold, np.inf) if p.strict else p.v_threshold),
            "v_reset": _short(p.v_reset),
            "reset": "zero" if p.reset_zero else "subtract",
            "t_ref": _short(p.refractory_steps * self.dt),
            "surrogate": self.surrogate,
        }
        if not p.reset_zero:
            firing["reset_amount"] = _short(p.reset_amount)
        if isinstance(record, StochasticNeuron):
            drawn = {"release": record.release, "drive_step": _short(p.drive_step), "mode": record.mode}  # type: ignore[attr-defined]
            if isinstance(record, records.LevyBaxter):
                threshold = record.v_threshold
                return LevyBaxter(size, dt=self.dt, v_threshold=threshold, surrogate=self.surrogate, **drawn)
            drawn |= {"amplitude": record.amplitude, "temperature": record.temperature}  # type: ignore[attr-defined]
            return MetaNeuron(size, **membrane, **drawn, **firing)
        if isinstance(record, records.IF):
            return IF(size, dt=self.dt, **firing)
        if isinstance(record, records.CubaLIF):
            return CubaLIF(size, **membrane, **_current(CubaLIF, size, self.dt, p), **firing)
        if isinstance(record, records.AdaptiveLIF):
            adaptation = {"adapt_v": _short(p.adapt_v), "adapt_spike": _short(p.adapt_spike)}
            adaptation["adapt_threshold"] = _short(p.adapt_threshold)
            return AdaptiveLIF(size, **membrane, rho=_short(p.adapt_decay), **adaptation, **firing)
        return LIF(size, **membrane, **firing)


def _short(value: npt.NDArray[Any]) -> Any:
    """Return a number if all entries are equal, else the array."""
    return float(value[0]) if np.all(value == value[0]) else np.asarray(value, dtype=np.float64)


def _current(module: type[CubaLIF] | type[CubaLI], size: int, dt: float, p: records.StepParameters) -> dict[str, Any]:
    """Return the arguments of a current: its decay, and the gain only where it is not the exact one."""
    values = {"alpha": _short(p.alpha)}
    if np.any(p.beta <= 0) or np.any(p.beta >= 1) or np.any(p.alpha <= 0) or np.any(p.alpha >= 1):
        return values | {"kappa": _short(p.kappa)}
    exact = module(size, dt=dt, beta=_short(p.beta), **values).gain().expand(size).numpy()
    return values if np.array_equal(exact, p.kappa) else values | {"kappa": _short(p.kappa)}
