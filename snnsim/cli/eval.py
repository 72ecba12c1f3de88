"""`snnsim eval`: accuracy of a trained run on a data set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from snnsim.cli.output import emit
from snnsim.errors import InputError

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
    energy: Annotated[
        bool,
        typer.Option("--energy", help="Count operations, with energy by published tables (needs --engine clock)."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a trained run on a data set; a look at the test set is counted in the run's manifest."""
    from snnsim.training.runs import load_run

    if energy and engine == "torch":
        raise InputError("--energy: counts the operations of the frozen network; add --engine clock")
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
    more: dict[str, Any] = {}
    if energy:
        from snnsim.energy import TABLES, estimate_energy, neurobench_metrics

        network, operations = opened.network(chosen), result.extra["operations"]
        more["neurobench"] = neurobench_metrics(network, operations, accuracy=result.accuracy)
        more["operations"] = operations.per_sample()
        estimates = [estimate_energy(network, operations, name) for name in TABLES]
        more["energy"] = {item.table: item.to_dict() for item in estimates}
        text = "\n".join([text, *_lines(more["neurobench"]), *(item.sentence() for item in estimates)])
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
            **more,
        },
        json,
        text,
    )


def _lines(metrics: dict[str, Any]) -> list[str]:
    """Return NeuroBench's metrics, one a line."""
    operations = metrics["SynapticOperations"]
    return [
        f"Footprint {metrics['Footprint']} bytes, ConnectionSparsity {metrics['ConnectionSparsity']:.4f}, "
        f"ActivationSparsity {metrics['ActivationSparsity']:.4f}",
        "SynapticOperations a sample: " + ", ".join(f"{name} {value:.6g}" for name, value in operations.items()),
    ]
