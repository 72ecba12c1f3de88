"""What a frozen network costs along the share of its synapses that a mask has left: time and memory of the engines.

All networks are frozen from models of the same sizes. Their neurons fire because of a bias; weights are so small that
they move no spike (checked), so that networks differ in the work of their synapses alone, and the network without
synapses says what everything else takes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch

from snnsim.bench.resident import prepared
from snnsim.engines import Result
from snnsim.errors import InputError
from snnsim.network import Network, Sparse
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.freeze import freeze
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF
from snnsim.nn.neurons_cuba import CubaLIF

__all__ = [
    "DENSITIES",
    "DENSITY_ENGINES",
    "DensityCurve",
    "DensityPoint",
    "Kind",
    "format_density",
    "kinds_of",
    "make_pruned",
    "measure_density",
]

Kind = Literal["lif", "cuba", "delays"]
"""``lif``: no delays, LIF neurons; ``cuba``: no delays, neurons with a synaptic current; ``delays``: LIF neurons and a
delay of 0 to 25 steps for every synapse."""

DENSITIES = (1.0, 0.5, 0.25, 0.1, 0.05)
DENSITY_ENGINES = ("clock", "event-grid", "event")
"""The clock engine, the event engine on the network's grid, and the event engine in continuous time."""

DT = 0.001
SIZES = {"clock": (2048, 2000), "event-grid": (2048, 2000), "event": (1024, 200)}
"""Units of a layer and steps of a run by engine. The clock engine's weights must not fit the cache, or some networks
have the advantage that theirs lie near, and its runs must be long: in 500 steps a small network that another one has
pushed out of the cache is not back in it yet."""

OVER = (1.02, 1.3)
"""Where the membrane goes under the bias alone, in thresholds: 15 to 35 spikes a second."""

TINY = 1e-9
"""Size of the weights: what arrives moves no spike from its step."""


@dataclass(frozen=True)
class DensityPoint:
    """One network.

    Attributes:
        density: Share of the synapses that exist; a negative number: all of them in a dense matrix without a mask.
        synapses: Synapses of the hidden layers.
        events: Synaptic events of a run.
        seconds: Processor time of every run.
        network_bytes: Weights, targets and delays of the network.
        resident_bytes: By how much the resident memory of a process rises that reads the network and runs it.
    """

    density: float
    synapses: int
    events: int
    seconds: tuple[float, ...]
    network_bytes: int
    resident_bytes: int


@dataclass(frozen=True)
class DensityCurve:
    """All densities of a kind of network in one engine; the last point has no synapses."""

    kind: str
    engine: str
    points: tuple[DensityPoint, ...]

    def synaptic(self, point: DensityPoint) -> float:
        """Return the least seconds of a run beyond those of the network without synapses."""
        return min(point.seconds) - min(self.points[-1].seconds)

    def ratios(self, point: DensityPoint) -> dict[str, float]:
        """Return time, bytes of the network and resident bytes a synapse, as multiples of those at density 1."""
        full, none = next(item for item in self.points if item.density == 1.0), self.points[-1]
        share = point.synapses / full.synapses
        return {
            "time": self.synaptic(point) / self.synaptic(full) / share,
            "network": (point.network_bytes - none.network_bytes)
            / max(1, full.network_bytes - none.network_bytes)
            / share,
            "resident": (point.resident_bytes - none.resident_bytes)
            / max(1, full.resident_bytes - none.resident_bytes)
            / share,
        }

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        rows = []
        for point in self.points:
            row = asdict(point) | {"synaptic_seconds": self.synaptic(point)}
            rows.append(row | ({"per_synapse": self.ratios(point)} if point.synapses else {}))
        return {"kind": self.kind, "engine": self.engine, "points": rows}


def kinds_of(names: Iterable[str] | None) -> list[Kind]:
    """Return kinds by name; all without names.

    Raises:
        InputError: There is no such kind.
    """
    known = get_args(Kind)
    for name in names or ():
        if name not in known:
            raise InputError(f"bench density: expected some of {', '.join(known)}, got {name!r}")
    return [cast(Kind, name) for name in names or known]


def make_pruned(kind: Kind, density: float | None, units: int, *, weight: float = TINY) -> Network:
    """Return a frozen network of two hidden layers, each of whose connections has lost synapses at random.

    Args:
        kind: Which neurons and delays.
        density: Share of the synapses that a mask leaves; None: there is no mask, and all exist.
        units: Input channels and neurons of each layer.
        weight: Size of the weights.
    """
    generator = torch.Generator().manual_seed(1)
    blocks = []
    for _ in range(2):
        connection: Linear | DelayedLinear
        if kind == "delays":
            connection = DelayedLinear(units, units, max_delay_steps=25, bias=True, generator=generator)
        else:
            connection = Linear(units, units, bias=True, generator=generator)
        connection.weight.data *= weight / float(connection.weight.detach().abs().max())
        chance = torch.rand(units, units, generator=generator)
        if density is not None:
            connection.set_mask(chance < density)
        neuron = CubaLIF(units, dt=DT, tau_mem=0.02, tau_syn=0.005) if kind == "cuba" else LIF(units, dt=DT)
        goal = torch.linspace(*OVER, units, dtype=torch.float64)
        if isinstance(neuron, CubaLIF):
            beta, alpha, kappa = neuron.decays(torch.float64)
            bias = goal * (1 - beta) * (1 - alpha) / kappa
        else:
            bias = goal * (1 - float(np.exp(-DT / 0.02)))
        assert connection.bias is not None
        connection.bias.data = bias.detach().float()
        blocks.append(Block(connection, neuron))
    readout = ReadoutBlock(Linear(units, 1, generator=generator), LI(1, dt=DT), reduce="mean")
    return freeze(SpikingModel(blocks, readout, dt=DT).eval())


def _network_bytes(network: Network) -> int:
    """Return the bytes of the weights, targets and delays of the hidden layers."""
    total = 0
    for projection in network.projections:
        weight, delay = projection.weight, projection.delay
        total += weight.nbytes
        values = delay if isinstance(delay, (float, np.ndarray)) else delay.values
        total += np.asarray(values).nbytes if np.ndim(values) else 0
        assert isinstance(weight, (Sparse, np.ndarray))
    return total


def _resident(path: Path, small: Path, engine: str, steps: int) -> int:
    """Return how far the memory of a fresh process rises that reads a network and runs it, after a small one."""
    command = [sys.executable, "-m", "snnsim.bench.resident", str(small), str(path), engine, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"bench density: a run ended with {done.stderr.strip().splitlines()[-1:]}")
    return int(json.loads(done.stdout)["bytes"])


def measure_density(
    kinds: Iterable[Kind] = get_args(Kind),
    engines: Iterable[str] = DENSITY_ENGINES,
    *,
    densities: Sequence[float] = DENSITIES,
    units: int | None = None,
    steps: int | None = None,
    rounds: int = 5,
    memory: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> list[DensityCurve]:
    """Run networks of every density in turn, on one thread.

    Args:
        kinds: Kinds of networks.
        engines: Of :data:`DENSITY_ENGINES`.
        densities: Shares of synapses, 1 among them.
        units: Input channels and neurons of each of two layers; default by engine, :data:`SIZES`.
        steps: Steps of 1 ms; default by engine.
        rounds: Turns of every network; the least time counts.
        memory: Whether to measure resident memory, in a process of its own for every network.
        tell: Told what is being done.

    Raises:
        InputError: 1 is not among the densities, an engine is unknown, or networks do not have the same spikes.
    """
    if 1.0 not in densities:
        raise InputError(f"densities: expected 1 among them, to compare with, got {tuple(densities)}")
    unknown = [name for name in engines if name not in DENSITY_ENGINES]
    if unknown:
        raise InputError(f"engines: expected some of {', '.join(DENSITY_ENGINES)}, got {unknown[0]!r}")
    curves = []
    for kind in kinds:
        shares: list[float | None] = [None, *densities, 0.0]
        made: dict[int, list[Network]] = {}
        for engine in engines:
            size = units or SIZES[engine][0]
            networks = made.get(size) or [make_pruned(kind, share, size) for share in shares]
            made[size] = networks
            tell(f"{kind} on {engine}: {len(networks)} networks of {size} units, {rounds} rounds in turn")
            curves.append(_curve(kind, engine, shares, networks, steps or SIZES[engine][1], rounds, memory))
    return curves


def _curve(
    kind: Kind,
    engine: str,
    shares: Sequence[float | None],
    networks: Sequence[Network],
    steps: int,
    rounds: int,
    memory: bool,
) -> DensityCurve:
    resident = [0] * len(networks)
    if memory:
        with tempfile.TemporaryDirectory() as folder:
            small = make_pruned(kind, 0.5, 16).save(Path(folder) / "small.snn.h5")
            for k, network in enumerate(networks):
                path = network.save(Path(folder) / f"{k}.snn.h5")
                resident[k] = _resident(path, small, engine, steps)
                path.unlink()
    runs = [prepared(network, engine, steps) for network in networks]
    seconds: list[list[float]] = [[] for _ in networks]
    results: list[Result] = []
    for turn in range(rounds + 1):
        results = []
        for times, (runner, inputs) in zip(seconds, runs, strict=True):
            begin = time.process_time()
            results.append(runner.run(inputs))
            if turn:
                times.append(time.process_time() - begin)
    fired = [[int(result.spikes[item].times.shape[0]) for item in ("hidden1", "hidden2")] for result in results]
    if any(counts != fired[0] for counts in fired):
        raise InputError(f"bench density: {kind} on {engine}: networks of one size fire differently: {fired}")
    readout = networks[-1].projections[-1].n_synapses
    points = [
        DensityPoint(
            -1.0 if share is None else share,
            sum(item.n_synapses for item in network.projections) - readout,
            int(result.operations.synaptic_operations),
            tuple(times),
            _network_bytes(network),
            bytes_,
        )
        for share, network, times, bytes_, result in zip(shares, networks, seconds, resident, results, strict=True)
    ]
    return DensityCurve(kind, engine, tuple(points))


def format_density(curves: Sequence[DensityCurve]) -> str:
    """Return a table of text for every curve."""
    lines = []
    for curve in curves:
        lines.append(
            f"{curve.kind} on {curve.engine}: a run and its synaptic part; at the right a synapse's share of each,"
        )
        lines.append("relative to a mask that leaves all synapses")
        lines.append(f"{'density':>10} {'ms':>8} {'synaptic':>9} {'ns/event':>9} {'network':>12} {'resident':>12}")
        none = curve.points[-1]
        for point in curve.points:
            name = "no mask" if point.density < 0 else f"{point.density:.0%}"
            text = f"{name:>10} {statistics.median(point.seconds) * 1e3:8.1f} {curve.synaptic(point) * 1e3:9.2f} "
            events = point.events - none.events
            text += f"{curve.synaptic(point) / events * 1e9:9.2f} " if events else f"{'':>9} "
            text += f"{point.network_bytes / 2**20:8.1f} MiB {point.resident_bytes / 2**20:8.1f} MiB"
            if point.synapses:
                ratios = curve.ratios(point)
                text += f"   time {ratios['time']:.2f}, network {ratios['network']:.2f}"
                text += f", resident {ratios['resident']:.2f}" if point.resident_bytes else ""
            lines.append(text)
    return "\n".join(lines)
