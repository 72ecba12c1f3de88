"""`snnsim report`: draw a run as one self-contained HTML page."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnsim.cli.eval import Weights
from snnsim.cli.output import emit, note
from snnsim.errors import SnnsimFileError

if TYPE_CHECKING:
    from snnsim.datasets.dataset import Dataset
    from snnsim.network import Network
    from snnsim.training.runs import Run

__all__ = ["report", "report_run"]


def _read_proof(path: Path) -> dict[str, Any]:
    """Read a proof that `snnsim export --check` wrote."""
    try:
        value = json_module.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SnnsimFileError(path, "", f"is not valid JSON ({error}); expected a proof of snnsim export") from error
    if not isinstance(value, dict) or not {"mismatches", "compared"} <= set(value):
        raise SnnsimFileError(path, "", "holds no mismatches and compared; expected a proof of snnsim export --check")
    return value


def _untrained(run: Run) -> Network:
    """The run's network before the first update, frozen."""
    from snnsim.nn.freeze import freeze

    return freeze(run.model("initial"), round_delays=run.recipe.train.learning != "eventprop")


def report_run(
    run: Run,
    dataset: Dataset,
    out: str | Path,
    *,
    which: str | None = None,
    proof: dict[str, Any] | None = None,
    changes: list[str] | None = None,
    seconds: dict[str, float] | None = None,
) -> Path:
    """Write the page of a training run, on the test split, or on the held-out samples where there is none.

    Args:
        run: The run.
        dataset: Its data set.
        out: HTML file.
        which: ``best`` or ``last`` weights; the run's own choice by default.
        proof: Export proof as plain values.
        changes: What the exporter changed.
        seconds: Wall time by stage.
    """
    from snnsim.report import Story, write_report
    from snnsim.training.moved import format_moved
    from snnsim.training.prepare import pool_units, prepare_split

    chosen: Any = which or run.default
    split = "test" if dataset.test is not None else "valid"
    events = prepare_split(run.recipe, dataset, split, run.manifest)
    unseen = len(dataset.unseen_speakers)
    words = f"test samples of {unseen} unseen voices" if unseen and split == "test" else f"{split} samples"
    if split == "test":
        run.folder.record_test_run("report", [chosen])
    title = f"{run.recipe.name} on {run.manifest['data']}, seed {run.manifest['seed']}"
    story = Story(
        title=title,
        recipe=run.recipe.to_dict(),
        manifest=run.folder.manifest(),
        metrics=run.metrics,
        result=(run.result or {}).get("results", {}),
        before=_untrained(run),
        moved=format_moved(run.moved(chosen)),
        proof=proof,
        changes=changes or [],
        files={item.name: item.stat().st_size for item in sorted(run.path.iterdir()) if item.is_file()},
        seconds=seconds or {},
        split=words,
    )
    network = run.network(chosen)
    return write_report(out, network, pool_units(events, run.pool), story, tail_steps=run.model(chosen).tail_steps)


def report(
    run: Annotated[Path, typer.Argument(help="Run folder of `snnsim train`.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Data set: name, folder or file; by default the run's own, by name.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file to write; by default report.html in the run folder.")
    ] = None,
    weights: Annotated[
        Weights | None, typer.Option("--weights", help="Weights [default: best, if there was a validation set].")
    ] = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="Proof written by `snnsim export --check`, shown on the page.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw a run as one self-contained HTML page.

    Learning curves, a right and a wrong sample layer by layer, membrane traces, delays before and after training,
    firing rates, confusion matrix, operations, export proof and manifest.
    """
    from time import perf_counter

    from snnsim.datasets import list_datasets, open_dataset
    from snnsim.errors import InputError
    from snnsim.training.runs import load_run

    begin = perf_counter()
    opened = load_run(run)
    name, digest = opened.manifest["data"], opened.manifest["data_digest"]
    if data is None and name not in list_datasets():
        raise InputError(f"{run}: was trained on {name!r}, which is not built in; say where it is with --data")
    dataset = open_dataset(data or name)
    if dataset.digest != digest:
        note(f"warning: {dataset.name} is not the data that the run was trained on ({name}, digest {digest[:12]})")
    note(f"simulating and drawing {run} ...")
    written = report_run(
        opened,
        dataset,
        out or run / "report.html",
        which=None if weights is None else weights.value,
        proof=None if proof is None else _read_proof(proof),
    )
    result = {"files": [written], "seconds": perf_counter() - begin}
    emit(result, json=json, text=f"{written} ({written.stat().st_size / 1e6:.1f} MB): open it in a browser")
