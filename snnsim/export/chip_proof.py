"""The proof of a chip export: an independent simulator of the chip runs the written file, spike for spike.

The reference is the integer engine on the network that was written, quantised again if it was a float network, and not
on what the file says: a file that holds another network does not pass. Planted errors (one weight, one delay where
the law has them, one threshold) are written to files of their own and must differ from the true reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines.integer import simulate_integer
from snnsim.errors import InputError
from snnsim.events import Events, bin_events
from snnsim.export.chip_judges import LavaJudge, SanaFeJudge, XyloJudge
from snnsim.export.integer_meta import to_integers
from snnsim.export.lava import LONGEST, write_lava
from snnsim.export.oracle import OracleMissingError
from snnsim.export.outcome import MIN_NEURON_STEPS, LayerProof, MutationProof, Outcome, shortfalls
from snnsim.export.proof_inputs import choose_rate, with_reserve
from snnsim.export.sana_fe import write_sana_fe
from snnsim.export.xylo import write_xylo
from snnsim.files import sha256_bytes, sha256_file
from snnsim.integer_network import IntegerNetwork
from snnsim.network import Network

__all__ = ["ChipProof", "prove_lava", "prove_sana_fe", "prove_xylo"]

Array = npt.NDArray[Any]
PLANTED_SAMPLES = 5
LEAST_STEPS = 100


@dataclass(frozen=True)
class ChipProof(Outcome):
    """The outcome of a proof.

    Attributes:
        target: Name of the target.
        versions: Of the program and what it runs on.
        file_sha256: Hash of the file.
        overflow: Neuron-steps of the reference in which a number left its range, by population.
        judge_seconds: Median seconds a sample in the judge, None if it does not say.
    """

    target: str
    versions: tuple[str, ...]
    file_sha256: str
    overflow: dict[str, int]
    judge_seconds: float | None

    def costs(self) -> list[str]:
        """Return the program's versions and its time."""
        lines = [f"Run by {', '.join(self.versions)}."]
        if self.judge_seconds is not None:
            lines.append(f"{self.judge} took {self.judge_seconds:.2f} s a sample (median).")
        return lines


def prove_lava(
    network: Network | IntegerNetwork, path: str | Path, *, options: Mapping[str, Any] | None = None, **settings: Any
) -> ChipProof:
    """Run a ``.net`` file in Lava's fixed-point simulator and compare every spike; see :func:`prove_chip`."""
    whole = _integers(network, "loihi2", "loihi2", options or {})
    if (options or {}).get("delays") == "clamp":
        held = (replace(item, delay=np.minimum(item.delay, LONGEST + 1)) for item in whole.projections)
        whole = whole.replace(projections=tuple(held))
    return prove_chip("lava", network, path, whole, write_lava, LavaJudge, **settings)


def prove_xylo(
    network: Network | IntegerNetwork, path: str | Path, *, options: Mapping[str, Any] | None = None, **settings: Any
) -> ChipProof:
    """Run a Xylo specification in xylosim and compare every spike; see :func:`prove_chip`."""
    whole = _integers(network, "xylo", "xylo-audio2", options or {})
    return prove_chip("xylo", network, path, whole, write_xylo, XyloJudge, **settings)


def prove_sana_fe(
    network: Network | IntegerNetwork, path: str | Path, *, options: Mapping[str, Any] | None = None, **settings: Any
) -> ChipProof:
    """Run a YAML network in SANA-FE and compare every spike; energy and latency a sample are in the remarks."""
    whole = _integers(network, "loihi2", "loihi2", {**(options or {}), "delays": "refuse"})
    return prove_chip("sana-fe", network, path, whole, write_sana_fe, SanaFeJudge, **settings)


def _integers(network: Network | IntegerNetwork, law: str, profile: str, options: Mapping[str, Any]) -> IntegerNetwork:
    """Return the integers that were written, from the network and the writer's options and not from the file."""
    chosen = (options.get("delays", "refuse"), options.get("scale", "auto"), options.get("calibrate"))
    return to_integers(network, law, profile, *chosen)


def prove_chip(
    target: str,
    network: Network | IntegerNetwork,
    path: str | Path,
    whole: IntegerNetwork,
    write: Callable[..., Any],
    make_judge: Callable[..., Any],
    *,
    events: Events | None = None,
    n_samples: int = 100,
    n_steps: int | None = None,
    seed: int = 0,
    mutate: bool = True,
    pythons: Mapping[str, str] | None = None,
) -> ChipProof:
    """Run a written file with its chip's simulator and compare every spike with the integer engine.

    Args:
        target: Name of the target.
        network: What was written; its notes may say how many empty steps follow a sample.
        path: The file.
        whole: The integers that the file should hold: the reference.
        write: Writer, for planted errors.
        make_judge: ``(path, pythons) -> judge``.
        events: Input; default generated.
        n_samples: Samples.
        n_steps: Steps a sample; default as many as a proof that counts needs, at least 100.
        seed: Of generated input.
        mutate: Whether errors are planted.
        pythons: Interpreters by name of the program.

    Raises:
        InputError: The events do not fit, the file has other populations, or the program fails.
        SnnsimFileError: The file is damaged.
    """
    begin = perf_counter()
    label = f"integer reference of law {whole.law!r}"
    try:
        judge = make_judge(path, pythons)
    except OracleMissingError as error:
        return ChipProof(
            target=target,
            reference=label,
            judge="nothing",
            versions=(),
            missing=str(error),
            digest=whole.digest(),
            file_sha256=sha256_file(path),
            inputs_sha256="",
            layers=(),
            mutations=(),
            overflow={},
            n_samples=0,
            n_steps=0,
            source="",
            judge_seconds=None,
            remarks=(),
            seconds=perf_counter() - begin,
        )
    tail = network.noted_steps("tail_steps") if isinstance(network, Network) else 0
    if events is None:
        counts, source = _generated(whole, n_samples, n_steps, seed)
    else:
        counts, source = _given(whole, events, n_samples, n_steps, tail, judge.max_count)
    reference, overflow = run_reference(whole, counts)
    theirs = judge.run(counts)
    if set(reference) - set(theirs):
        raise InputError(
            f"proof: {path} has the populations {list(theirs)}, expected {list(reference)}; export it again"
        )
    layers = tuple(_compare(name, reference[name], theirs[name]) for name in reference)
    seconds = float(np.median(judge.seconds)) if judge.seconds else None
    cost = _cost(judge)
    few = counts[:PLANTED_SAMPLES]
    mutations: tuple[MutationProof, ...] = ()
    if mutate:
        mutations = tuple(_plant(whole, few, reference, write, lambda file: make_judge(file, pythons)))
    remarks = shortfalls(layers)
    quiet = [item.name for item in whole.populations if not item.spiking]
    if quiet:
        remarks.append(f"Not compared, as the program gives spikes only: the membranes of {', '.join(quiet)}.")
    if any(overflow.values()):
        remarks.append(f"Numbers left their range in the reference: {overflow} neuron-steps.")
    remarks += cost
    return ChipProof(
        target=target,
        reference=label,
        judge=judge.name,
        versions=tuple(judge.versions),
        missing="",
        digest=whole.digest(),
        file_sha256=sha256_file(path),
        inputs_sha256=sha256_bytes(counts.astype(np.uint8).tobytes()),
        layers=layers,
        mutations=mutations,
        overflow=overflow,
        n_samples=counts.shape[0],
        n_steps=counts.shape[1],
        source=source,
        judge_seconds=seconds,
        remarks=tuple(remarks),
        seconds=perf_counter() - begin,
    )


def _cost(judge: Any) -> list[str]:
    """Return energy and latency a sample as a sentence, if the judge estimates them."""
    if not isinstance(judge, SanaFeJudge):
        return []
    parts = ("synapse", "dendrite", "soma", "network", "total")
    energy = ", ".join(f"{name} {value:.3g}" for name, value in zip(parts, judge.energy.mean(axis=0), strict=True))
    return [f"Estimated a sample on average, in J: {energy}; {judge.time.mean():.3g} s of chip time."]


def run_reference(whole: IntegerNetwork, counts: Array) -> tuple[dict[str, Array], dict[str, int]]:
    """Run events ``(samples, steps, channels)``; return spikes by population in the same layout, and overflows."""
    times, units = [], []
    n_steps = counts.shape[1]
    for sample in counts:
        step, unit = np.nonzero(sample)
        repeat = sample[step, unit].astype(np.int64)
        times.append(np.repeat(step * whole.dt, repeat))
        units.append(np.repeat(unit, repeat).astype(np.int32))
    events = Events.from_lists(times, units, counts.shape[2], duration=n_steps * whole.dt)
    result = simulate_integer(whole, events, n_steps=n_steps, extra_steps=0)
    spikes = {
        name: np.asarray(bin_events(item, whole.dt, n_steps)).transpose(1, 0, 2).astype(np.int64)
        for name, item in result.spikes.items()
    }
    return spikes, {name: int(count) for name, count in result.notes["overflow"].items()}


def _given(
    whole: IntegerNetwork, events: Events, n_samples: int, n_steps: int | None, tail: int, most: int
) -> tuple[Array, str]:
    size = whole.inputs[0].size
    if events.n_units != size:
        raise InputError(f"proof: the events have {events.n_units} channels, the network {size}")
    chosen = events if len(events) <= n_samples else events.subset(np.arange(n_samples))
    steps = n_steps or int(chosen.n_steps(whole.dt).max(initial=1)) + tail + whole.max_latency
    counts = np.asarray(bin_events(chosen, whole.dt, steps)).transpose(1, 0, 2).astype(np.int64)
    lost = int(np.maximum(counts - most, 0).sum())
    more = f", {lost} events beyond {most} of a channel in a step left out" if lost else ""
    return np.minimum(counts, most), f"{len(chosen)} given samples{more}"


def _generated(whole: IntegerNetwork, n_samples: int, n_steps: int | None, seed: int) -> tuple[Array, str]:
    """Return random events under which every layer is active."""
    size = whole.inputs[0].size
    neurons = sum(item.size for item in whole.populations if item.spiking)
    steps = n_steps or max(LEAST_STEPS + whole.max_delay, -(-MIN_NEURON_STEPS // (neurons * n_samples)))

    def draw(rate: float, samples: int, steps: int) -> Array:
        rng = np.random.default_rng([seed, int(rate * 1e6)])
        return (rng.random((samples, steps, size)) < rate * rng.uniform(0.5, 1.5, (samples, 1, size))).astype(np.int64)

    def look(rate: float) -> tuple[list[float], float]:
        spikes, _ = run_reference(whole, draw(rate, 2, steps))
        least = min(float(value.sum()) / (2 * steps) for value in spikes.values())
        return [float((value > 0).mean()) for value in spikes.values()], least

    rate, least = choose_rate(look)
    if n_steps is None:
        steps = max(steps, min(20 * steps, with_reserve(least * n_samples)))
    return draw(rate, n_samples, steps), f"random input, rate {rate} a step, seed {seed}"


def _compare(name: str, ours: Array, theirs: Array) -> LayerProof:
    if theirs.shape != ours.shape:
        raise InputError(f"proof: {name!r}: the judge gave shape {theirs.shape}, expected {ours.shape}")
    differing = ours != theirs
    where = None
    if differing.any():
        sample, step, neuron = np.argwhere(differing)[0]
        where = (int(sample), int(step), int(neuron))
    return LayerProof(name, ours.shape[2], ours.size, int(ours.sum()), int(differing.sum()), where)


def _plant(
    whole: IntegerNetwork,
    counts: Array,
    reference: dict[str, Array],
    write: Callable[..., Any],
    load: Callable[[Path], Any],
) -> Iterator[MutationProof]:
    """Write and run changed networks against the true reference."""
    true = {name: value[: len(counts)] for name, value in reference.items()}
    for kind, choices in planted(whole, counts, true):
        chosen = None
        for what, changed in choices:
            spikes, _ = run_reference(changed, counts)
            if chosen is None or any(not np.array_equal(spikes[name], true[name]) for name in true):
                chosen = (what, changed)
                if any(not np.array_equal(spikes[name], true[name]) for name in true):
                    break
        if chosen is None:
            continue
        with TemporaryDirectory(prefix="snnsim-planted-") as folder:
            file = Path(folder) / ("planted.npz" if whole.law == "xylo" else "planted.net")
            write(chosen[1], file)
            found = load(file).run(counts)
        different = sum(int(np.count_nonzero(found[name] != true[name])) for name in true)
        yield MutationProof(kind, chosen[0], different)


def planted(
    whole: IntegerNetwork, counts: Array, spikes: Mapping[str, Array]
) -> Iterator[tuple[str, list[tuple[str, IntegerNetwork]]]]:
    """Yield, for a weight, a delay (law ``loihi2``) and a threshold, changed networks, the most telling first."""
    activity = {whole.inputs[0].name: counts.sum(axis=(0, 1))}
    activity |= {name: value.sum(axis=(0, 1)) for name, value in spikes.items()}
    places: list[tuple[float, int, int]] = []
    for number, item in enumerate(whole.projections):
        if item.target in spikes and item.n_synapses:
            score = np.abs(item.weight) * activity[item.source][item.sources()] * activity[item.target][item.unit]
            top = np.argsort(-score, kind="stable")[:5]
            places += [(-float(score[k]), number, int(k)) for k in top]
    places.sort()
    kinds = ("weight", "delay") if whole.law == "loihi2" else ("weight",)
    for kind in kinds:
        yield kind, [_synapse(whole, number, k, kind) for _, number, k in places[:5]]
    names = sorted(spikes, key=lambda name: -int(activity[name].sum()))
    yield "threshold", [_threshold(whole, name) for name in names]


def _synapse(whole: IntegerNetwork, number: int, index: int, kind: str) -> tuple[str, IntegerNetwork]:
    item = whole.projections[number]
    values = getattr(item, kind).copy()
    old = int(values[index])
    if kind == "delay":
        new = old + 1 if old < 63 else old - 1
    else:  # a fifth towards 0, still even
        new = int(np.sign(old)) * (abs(old) - 2 * max(1, abs(old) // 10))
    values[index] = new
    projections = list(whole.projections)
    projections[number] = replace(item, **{kind: values})
    source = int(np.searchsorted(item.indptr, index, side="right")) - 1
    text = f"{kind} of synapse {source} -> {int(item.unit[index])} in {item.name!r}: {old} -> {new}"
    return text, whole.replace(projections=tuple(projections))


def _threshold(whole: IntegerNetwork, name: str) -> tuple[str, IntegerNetwork]:
    populations = list(whole.populations)
    place = [item.name for item in populations].index(name)
    item = populations[place]
    old = item.parameters["v_threshold"]
    new = np.where(old < 2**14, old + 1 + old // 20, old - old // 20)
    populations[place] = type(item)(name, item.size, item.kind, {**item.parameters, "v_threshold": new})
    text = f"threshold of {name!r}: {int(old[0])} -> {int(new[0])}"
    return text, whole.replace(populations=tuple(populations))
