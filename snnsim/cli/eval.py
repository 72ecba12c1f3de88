"""`snnsim eval`: accuracy of a trained run on a data set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from snnsim.cli.output import emit

__all__ = ["evaluate"]


class Split(StrEnum):
    """Which samples."""

    train = "train"
    valid = "valid"
    test = "test"


class Weights(StrEnum):
    """Which weights."""

    best = "best"
    last = "last"


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[str, typer.Option("--data", help="Data set: a name, a folder or a file.")] = "spoken-digits",
    engine: Annotated[
        str, typer.Option("--engine", help="torch (the training model) or clock (its frozen network).")
    ] = "torch",
    split: Annotated[Split, typer.Option("--split", help="Samples to evaluate on.")] = Split.test,
    weights: Annotated[
        Weights | None, typer.Option("--weights", help="Weights [default: best, if there was a validation set].")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a trained run on a data set; a look at the test set is counted in the run's manifest."""
    from snnsim.training.runs import load_run

    opened = load_run(run)

    from snnsim.datasets import open_dataset
    from snnsim.training import evaluate as run_evaluation

    chosen: Literal["best", "last"] = opened.default
    if weights is not None:
        chosen = "best" if weights is Weights.best else "last"
    result = run_evaluation(opened, open_dataset(data), split=split.value, engine=engine, which=chosen)
    correct = round(result.accuracy * result.n_samples)
    text = (
        f"{chosen} weights, {split.value} split, engine {result.engine}: {100 * result.accuracy:.2f} % "
        f"({correct} of {result.n_samples}), {result.spikes / max(1, result.n_samples):.0f} spikes and "
        f"{result.synaptic_operations:.3g} synaptic operations a sample, {result.seconds:.1f} s"
    )
    emit(
        {
            "accuracy": result.accuracy,
            "n_samples": result.n_samples,
            "engine": result.engine,
            "spikes": result.spikes / max(1, result.n_samples),
            "synaptic_operations": result.synaptic_operations,
            "seconds": result.seconds,
            "files": [str(run)],
            "loss": result.loss,
            "weights": chosen,
            "split": split.value,
            "rates": list(result.rates),
        },
        json,
        text,
    )
