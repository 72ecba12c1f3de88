"""`snnsim eval`: accuracy of a trained run on a data set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from snnsim.cli.given import refuse_given
from snnsim.cli.output import emit
from snnsim.cli.quantize import Decays, Delays
from snnsim.device import check_device
from snnsim.errors import InputError

if TYPE_CHECKING:
    from snnsim.training.runs import Run

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
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[str, typer.Option("--data", help="Data set: a name, a folder or a file.")] = "spoken-digits",
    engine: Annotated[
        str, typer.Option("--engine", help="torch (the training model), clock (its frozen network) or cuda (on a GPU).")
    ] = "torch",
    split: Annotated[Split, typer.Option("--split", help="Samples to evaluate on.")] = Split.test,
    weights: Annotated[
        Weights | None, typer.Option("--weights", help="Weights [default: best, if there was a validation set].")
    ] = None,
    arithmetic: Annotated[
        str | None,
        typer.Option("--as", metavar="PROFILE", help="In the integers of a chip: a limits profile or its file."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="With --as: set the scales with training samples.")
    ] = True,
    delays: Annotated[
        Delays, typer.Option("--delays", help="With --as: refuse or clamp too long delays.")
    ] = Delays.refuse,
    decays: Annotated[
        Decays, typer.Option("--decays", help="With --as: refuse time constants that differ, or average.")
    ] = Decays.refuse,
    energy: Annotated[
        bool,
        typer.Option("--energy", help="Count operations, with energy by published tables (needs --engine clock)."),
    ] = False,
    device: Annotated[
        str, typer.Option("--device", help="Where engine torch computes: cpu or cuda (an NVIDIA GPU).")
    ] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a trained run on a data set; a look at the test set is counted in the run's manifest."""
    if device != "cpu" and (arithmetic is not None or engine != "torch"):
        raise InputError("--device: says where engine torch computes; leave it, or --as and --engine, out")
    check_device(device, "--device")
    if arithmetic is not None and engine not in ("torch", "integer"):
        raise InputError(f"--engine: --as runs the integer engine; leave --engine {engine} out")
    if arithmetic is None:
        refuse_given(
            context, "is about the integers of a chip; add --as PROFILE", only=("calibrate", "delays", "decays")
        )
    else:
        from snnsim.limits import load_profile

        load_profile(arithmetic)
    from snnsim.training.runs import load_run

    if energy and arithmetic is not None:
        raise InputError("--energy: counts the operations of the float network; leave --as out")
    if energy and engine == "torch":
        raise InputError("--energy: counts the operations of the frozen network; add --engine clock")
    opened = load_run(run)

    from snnsim.datasets import open_dataset
    from snnsim.training import evaluate as run_evaluation

    chosen: Literal["best", "last"] = opened.default
    if weights is not None:
        chosen = "best" if weights is Weights.best else "last"
    if arithmetic is not None:
        choices = {"delays": delays.value, "decays": decays.value}
        _evaluate_as(opened, data, arithmetic, split.value, chosen, choices, calibrate, json)
        return
    result = run_evaluation(opened, open_dataset(data), split=split.value, engine=engine, which=chosen, device=device)
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


def _evaluate_as(
    run: Run,
    data: str,
    profile: str,
    split: Literal["train", "valid", "test"],
    which: Literal["best", "last"],
    choices: dict[str, Any],
    calibrate: bool,
    json: bool,
) -> None:
    """Print the accuracy in a chip's arithmetic beside that in floats, and what changed."""
    from snnsim.datasets import open_dataset
    from snnsim.quantize import QuantizeOptions
    from snnsim.training.integer_evaluation import evaluate_as

    options = QuantizeOptions(**choices)
    dataset = open_dataset(data)
    result = evaluate_as(run, dataset, profile, split=split, which=which, options=options, calibrate=calibrate)
    lines = []
    for name, outcome in (("float", result.float_result), (result.report.profile, result.integer_result)):
        correct = round(outcome.accuracy * outcome.n_samples)
        lines.append(
            f"{which} weights, {split} split, {name}: {100 * outcome.accuracy:.2f} % ({correct} of "
            f"{outcome.n_samples}), {outcome.spikes / max(1, outcome.n_samples):.0f} spikes and "
            f"{outcome.synaptic_operations:.3g} synaptic operations a sample, {outcome.seconds:.1f} s"
        )
    lines.append(f"{100 * result.same_class:.2f} % of the samples get the class of the float network")
    over = {name: count for name, count in result.overflow.items() if count}
    lines.append(f"neuron-steps in which a number left its range: {over if over else 'none'}")
    lines += [f"  {line}" for line in result.report.sentences()]
    whole = result.integer_result
    emit(
        {
            "accuracy": whole.accuracy,
            "n_samples": whole.n_samples,
            "engine": whole.engine,
            "spikes": whole.spikes / max(1, whole.n_samples),
            "synaptic_operations": whole.synaptic_operations,
            "seconds": whole.seconds,
            "files": [str(run.path)],
            "changes": list(result.report.changes),
            "float_accuracy": result.float_result.accuracy,
            "same_class": result.same_class,
            "overflow": result.overflow,
            "profile": result.report.profile,
            "weights": which,
            "split": split,
            "rates": list(whole.rates),
            "report": result.report.to_json(),
        },
        json,
        "\n".join(lines),
    )


def _lines(metrics: dict[str, Any]) -> list[str]:
    """Return NeuroBench's metrics, one a line."""
    operations = metrics["SynapticOperations"]
    return [
        f"Footprint {metrics['Footprint']} bytes, ConnectionSparsity {metrics['ConnectionSparsity']:.4f}, "
        f"ActivationSparsity {metrics['ActivationSparsity']:.4f}",
        "SynapticOperations a sample: " + ", ".join(f"{name} {value:.6g}" for name, value in operations.items()),
    ]
