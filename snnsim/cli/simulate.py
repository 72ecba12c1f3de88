"""`snnsim simulate`: run a frozen network on events, count its spikes, compare them with another run."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnsim.cli.output import emit, note, progress_bar
from snnsim.errors import InputError

if TYPE_CHECKING:
    from snnsim.engines import Result
    from snnsim.events import Events
    from snnsim.network import Network
    from snnsim.training.run_folder import RunFolder

__all__ = ["open_network", "simulate"]


class Split(StrEnum):
    """Which samples of a data set."""

    train = "train"
    valid = "valid"
    test = "test"


class Align(StrEnum):
    """Where the time of a sample begins."""

    zero = "zero"
    first_spike = "first-spike"


class Precision(StrEnum):
    """Floating-point type of a run."""

    float64 = "float64"
    float32 = "float32"


def simulate(
    source: Annotated[Path, typer.Argument(metavar="NETWORK", help="Network file (.snn.h5) or run folder.")],
    events: Annotated[str | None, typer.Option("--events", help="Data set: a name, a folder or a file.")] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="clock; cuda (on a GPU); event (continuous time); event-grid (the clock's spikes, neurons sleep); "
            "reference (slow).",
        ),
    ] = "clock",
    compare: Annotated[
        str | None,
        typer.Option("--compare", help="Compare every spike with another ENGINE or a FILE written by --out."),
    ] = None,
    split: Annotated[
        Split | None, typer.Option("--split", help="Samples of the data set [default: test, else train].")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Number of samples, from the first [default: all].")
    ] = None,
    align: Annotated[
        Align | None, typer.Option("--align", help="Where time begins, for a network file [default: zero].")
    ] = None,
    tail_steps: Annotated[
        int | None,
        typer.Option(
            "--tail-steps", min=0, help="Empty steps after each sample [default: the network's note, else 0]."
        ),
    ] = None,
    dtype: Annotated[Precision, typer.Option("--dtype", help="float64 is the parity mode.")] = Precision.float64,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads [default: all].")] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of neurons that draw random numbers.")
    ] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Write the spikes to this .h5 file.")] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            "--stream",
            metavar="-|PORT",
            help="Instead of --events: run along with lines 'time unit' from standard input (-) or a loopback port.",
        ),
    ] = None,
    chunk: Annotated[int, typer.Option("--chunk", min=1, help="Steps that --stream does together.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a frozen network on events and count its spikes and synaptic operations.

    With labels and a readout the accuracy is printed too. With --compare every neuron-step is compared with another
    engine or a stored run; the exit status is 1 if one differs. With --stream spikes are written as they happen, a line
    'time population unit' each.
    """
    from snnsim.device import check_device
    from snnsim.engines import ENGINES
    from snnsim.engines import simulate as run_network
    from snnsim.engines.spike_file import compare_spikes, load_spikes, save_spikes

    if (events is None) == (stream is None):
        raise InputError("simulate: expected --events with a data set or --stream, one of the two")
    if engine not in ENGINES:
        raise InputError(f"--engine: expected one of {', '.join(sorted(ENGINES))}, got {engine!r}")
    if stream is not None:
        if engine != "clock":
            raise InputError(f"--engine: --stream runs along on engine clock; leave --engine {engine} out")
        _stream(source, stream, chunk, dtype.value)
        return
    if compare is not None and compare not in ENGINES and not Path(compare).exists():
        raise InputError(
            f"--compare: expected one of {', '.join(sorted(ENGINES))} or a file written by --out, got {compare!r}"
        )
    if "cuda" in (engine, compare):
        check_device("cuda", "engine")
    stored = load_spikes(compare) if compare is not None and compare not in ENGINES else None
    network, run = open_network(source)
    tail = network.noted_steps("tail_steps") if tail_steps is None else tail_steps
    chosen = _events(str(events), split, align, network, run)
    if samples is not None:
        chosen = chosen.subset(range(min(samples, len(chosen))))
    note(f"running {len(chosen)} samples on engine {engine}, {dtype.value} ...")
    begin = time.perf_counter()
    options: dict[str, Any] = {"dtype": dtype.value, "threads": threads, "tail_steps": tail, "seed": seed}
    total = int(chosen.n_steps(network.dt).sum()) + tail * len(chosen)
    with progress_bar(total, "steps") as advance:
        result = run_network(network, chosen, engine=engine, progress=advance, **options)
    values, lines = _describe(network, chosen, result)
    if compare is not None:
        if stored is not None:
            found = compare_spikes(
                result.spikes,
                stored.spikes,
                dt=network.dt,
                n_steps=result.n_steps,
                other_dt=stored.dt,
                other_n_steps=stored.n_steps,
            )
        else:
            note(f"running them on engine {compare} ...")
            other = run_network(network, chosen, engine=compare, **options)
            found = compare_spikes(result.spikes, other.spikes, dt=network.dt, n_steps=result.n_steps)
        values |= {"mismatches": found.mismatches, "compared": found.compared, "first_mismatch": found.first}
        lines.append(f"compared with {compare}: {found.mismatches} of {found.compared} neuron-steps differ")
        if found.first is not None:
            sample, step, population, unit = found.first
            lines.append(f"  first: sample {sample}, step {step}, {population!r} neuron {unit}")
    if out is not None:
        save_spikes(result, out, dt=network.dt, network=network.digest())
        values["files"] = [out]
        lines.append(f"wrote {out}")
    values["seconds"] = time.perf_counter() - begin
    emit(values, json, "\n".join(lines))
    if values.get("mismatches"):
        raise typer.Exit(1)


def _stream(source: Path, where: str, chunk: int, dtype: str) -> None:
    """Run along with lines from standard input or a loopback port."""
    import sys

    from snnsim.engines.stream import Stream, run_lines, serve

    if where != "-" and not (where.isdigit() and int(where) < 2**16):
        raise InputError(f"--stream: expected - for standard input or a port from 0 to 65535, got {where!r}")
    network, _ = open_network(source)
    stream = Stream(network, dtype="float32" if dtype == "float32" else "float64")
    stream.advance(0)  # compiled before the first event comes
    if where != "-":
        serve(stream, int(where), sys.stdout, chunk)
        return
    for line in run_lines(stream, sys.stdin, chunk):
        print(line, flush=True)


def open_network(source: Path) -> tuple[Network, RunFolder | None]:
    """Return the network of a file or of a run folder, and the folder if it is one.

    Torch is loaded only for a run that was stopped before its network was frozen.
    """
    from snnsim.network import Network

    if not source.is_dir():
        return Network.load(source), None
    from snnsim.training.run_folder import RunFolder

    folder = RunFolder(source)
    folder.check()
    for name in ("best.snn.h5", "last.snn.h5"):
        if (source / name).is_file():
            return Network.load(source / name), folder
    from snnsim.training.runs import load_run

    return load_run(source).network(), folder


def _events(name: str, split: Split | None, align: Align | None, network: Network, run: RunFolder | None) -> Events:
    """Return the samples, aligned, on the network's channels."""
    from snnsim.datasets import open_dataset
    from snnsim.datasets.dataset import frame
    from snnsim.training.prepare import pool_units, prepare_split

    if len(network.inputs) != 1:
        raise InputError(
            f"--events: the network has {len(network.inputs)} inputs; use snnsim.engines.simulate with a dict of Events"
        )
    if run is not None and align is not None:
        raise InputError("--align: a run's recipe says how its samples are aligned; use --align with a network file")
    dataset = open_dataset(name)
    size = network.inputs[0].size
    part = split.value if split is not None else ("test" if dataset.test is not None else "train")
    if run is not None:
        manifest = run.manifest()
        events = prepare_split(run.recipe(), dataset, part, manifest)
        if part == "test":
            run.record_test_run("simulate", [name])
        return pool_units(events, int(manifest["pool"]))
    if part not in dataset.parts:
        raise InputError(f"--split: {name!r} has no {part} part, only {', '.join(dataset.parts)}")
    events = dataset.parts[part]
    pool = max(1, round(events.n_units / size))
    if -(-events.n_units // pool) != size:
        raise InputError(
            f"--events: {name!r} has {events.n_units} channels, the network {size}; are these the data it was made for?"
        )
    if align is Align.first_spike:
        events = frame(events, align="first-spike", dt=network.dt)
    return pool_units(events, pool)


def _describe(network: Network, events: Events, result: Result) -> tuple[dict[str, Any], list[str]]:
    """Return the values and the lines that a run is reported with."""
    from snnsim.metrics import accuracy

    n = max(1, len(events))
    operations = result.operations
    seconds = float(result.n_steps.sum()) * network.dt
    share = None
    if result.logits is not None and bool((events.labels >= 0).any()):
        share = accuracy(result.predictions, events.labels)
    populations = {}
    for name, spikes in result.spikes.items():
        size = network.population(name).size
        populations[name] = {
            "neurons": size,
            "spikes": spikes.n_events,
            "rate": spikes.n_events / (size * seconds) if seconds else 0.0,
        }
    total = sum(item["spikes"] for item in populations.values())
    dropped = int(result.dropped.sum())
    values = {
        "accuracy": share,
        "n_samples": len(events),
        "engine": result.engine,
        "spikes": total / n,
        "synaptic_operations": operations.synaptic_operations / n,
        "dense_operations": operations.dense / n,
        "neuron_updates": operations.neuron_updates / n,
        "populations": populations,
        "input_events": sum(operations.spikes[item.name] for item in network.inputs) / n,
        "dropped_events": dropped,
        "steps": int(result.n_steps.sum()),
    }
    width = max((len(name) for name in populations), default=0)
    lines = [f"{len(events)} samples, {int(result.n_steps.sum())} steps of {network.dt:g} s, engine {result.engine}"]
    for name, item in populations.items():
        lines.append(f"  {name:<{width}}  {item['spikes'] / n:10.1f} spikes a sample   {item['rate']:8.2f} Hz a neuron")
    sparsity = 1 - operations.synaptic_operations / operations.dense if operations.dense else 0.0
    lines.append(
        f"synaptic operations a sample: {operations.synaptic_operations / n:.4g} "
        f"(dense: {operations.dense / n:.4g}, {100 * sparsity:.1f} % saved)"
    )
    if dropped:
        lines.append(f"dropped events: {dropped}, at or beyond the last step of their sample")
    if share is not None:
        lines.append(f"accuracy: {100 * share:.2f} %")
    return values, lines
