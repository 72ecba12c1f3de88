"""`snnsim export`: write a network for another program, say what changed, prove that the same spikes come out."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnsim.cli.output import emit, note
from snnsim.errors import InputError

if TYPE_CHECKING:
    from snnsim.events import Events
    from snnsim.network import Network

__all__ = ["export"]


class Delays(StrEnum):
    """What to do with delays, for targets where they are a question."""

    delay_node = "delay-node"
    error = "error"
    drop_with_report = "drop-with-report"


def export(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_NETWORK", help="Run folder or network file (.snn.h5).")],
    target: Annotated[str, typer.Option("--target", help="Format to write: nir or sonata.")] = "nir",
    out: Annotated[
        Path | None, typer.Option("--out", help="File or folder to write (default: beside the source).")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run the file with an independent program and compare every spike.")
    ] = False,
    events: Annotated[
        str | None,
        typer.Option("--events", help="Data set whose training samples the check runs (default: generated input)."),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Samples that the check runs, at least.")] = 200,
    delays: Annotated[
        Delays, typer.Option("--delays", help="Write delays, refuse a network that has any, or drop them and say so.")
    ] = Delays.delay_node,
    stop_steps: Annotated[
        bool, typer.Option("--drop-stop-steps", help="Let populations that stop early run to the end.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a network for another program and prove that the same spikes come out."""
    begin = time.perf_counter()
    from snnsim.export import TARGETS, export_network, prove_export

    if target not in TARGETS:
        raise InputError(f"--target: expected one of {', '.join(sorted(TARGETS))}, got {target!r}")
    if events is not None and not check:
        raise InputError("--events: only a check runs events; add --check")
    network, stem, run = _open(source)
    path = out if out is not None else stem.with_name(stem.name + TARGETS[target].suffix)
    options: dict[str, Any] = {"delays": delays.value} if target == "nir" else {}
    if target != "nir" and (delays is not Delays.delay_node or stop_steps):
        raise InputError(f"--delays, --drop-stop-steps: are questions of the target nir; leave them out for {target}")
    if stop_steps:
        options["stop_steps"] = "drop-with-report"
    report = export_network(network, target, path, **options)
    files = [path]
    size = sum(item.stat().st_size for item in (path.rglob("*") if path.is_dir() else [path]) if item.is_file())
    lines = [f"wrote {path} ({size / 1e6:.2f} MB)", *(f"  {change}" for change in report.changes)]
    result: dict[str, Any] = {"files": files, "changes": list(report.changes), "latency": report.latency}
    holds = True
    if check:
        given = None if events is None else _samples(events, network, run, samples)
        note("checking with another program ...")
        proof = prove_export(network, target, path, options=options, events=given, n_samples=samples)
        proof_path = proof.save(path.with_name(path.name + ".proof.json"))
        files.append(proof_path)
        lines += ["proof:", *(f"  {sentence}" for sentence in proof.sentences()), f"wrote {proof_path}"]
        result |= {
            "n_samples": proof.n_samples,
            "engine": proof.reference,
            "spikes": proof.spikes,
            "mismatches": proof.mismatches,
            "compared": proof.compared,
            "proof_holds": proof.holds,
        }
        holds = proof.holds
    emit(result | {"seconds": time.perf_counter() - begin}, json=json, text="\n".join(lines))
    if not holds:
        raise typer.Exit(1)


def _open(source: Path) -> tuple[Network, Path, Any]:
    """Return the network, the path that its export is named after, and the run if it is one."""
    if source.is_dir():
        from snnsim.training.runs import load_run

        run = load_run(source)
        return run.network(), source / run.default, run
    from snnsim.network import Network

    name = source.name.removesuffix(".h5").removesuffix(".snn")
    return Network.load(source), source.with_name(name), None


def _samples(name: str, network: Network, run: Any, count: int) -> Events:
    """Return the first training samples of a data set, on the network's channels (the test set stays unseen)."""
    import numpy as np

    from snnsim.datasets import open_dataset
    from snnsim.training.prepare import pool_units, prepare_split

    dataset = open_dataset(name)
    size = network.inputs[0].size
    if run is not None:
        chosen = prepare_split(run.recipe, dataset, "train", run.manifest)
        pool = run.pool
    else:
        chosen, pool = dataset.train, dataset.n_units // size
    if pool < 1 or -(-chosen.n_units // pool) != size:
        raise InputError(f"--events: {name!r} has {chosen.n_units} channels, the network {size}; use matching data")
    return pool_units(chosen.subset(np.arange(min(count, len(chosen)))), pool)
