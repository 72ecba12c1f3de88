"""`snnsim train`: a recipe and a data set make a run folder."""

from __future__ import annotations

import os
import time
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from snnsim.cli.output import columns, emit, note
from snnsim.device import check_device
from snnsim.errors import InputError

__all__ = ["train"]


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Recipe: a name, NAME:VARIANT, or a .toml file; with --from that of the run.")
    ] = None,
    data: Annotated[str, typer.Option("--data", help="Data set: a name, a folder or a file.")] = "spoken-digits",
    out: Annotated[Path | None, typer.Option("--out", help="Run folder [default: runs/RECIPE-SEED].")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change of the recipe; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights, split, order and dropout.")] = 0,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Same as --set train.epochs=N.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Start from the weights of another run.")
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", metavar="PROFILE", help="Same as --set quantize.profile=PROFILE: train its grid."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard files as well.")] = False,
    best_test: Annotated[
        bool, typer.Option("--best-test", help="Also test every epoch and report the best, labelled so.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="Where to train: cpu or cuda (an NVIDIA GPU).")] = "cpu",
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="With --device cuda: capture a step once an epoch and replay it.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings only while training.")] = False,
) -> None:
    """Train a network from a recipe into a run folder; Ctrl-C leaves a run that --resume continues."""
    from snnsim.recipes import load_recipe

    if recipe is None and start is None:
        raise InputError("train: expected a recipe, or --from RUN to use that run's; `snnsim train --help` lists both")
    for option, value, key in (("--epochs", epochs, "train.epochs"), ("--quantize", quantize, "quantize.profile")):
        if value is not None and any(change.partition("=")[0].strip() == key for change in changes or []):
            raise InputError(f"{option}: the same as --set {key}=..., which is given as well; leave one of them out")
    extra = [] if epochs is None else [f"train.epochs={epochs}"]
    extra += [] if quantize is None else [f"quantize.profile={dumps(quantize)}"]
    source = recipe if recipe is not None else str(start / "recipe.json")  # type: ignore[operator]
    loaded = load_recipe(source, [*(changes or []), *extra])
    grid = [] if quantize is None else [Path(quantize).stem]
    folder = out or Path("runs") / "-".join((loaded.name, *grid, str(seed)))
    if "LOCAL_RANK" not in os.environ:  # of several processes each takes its own GPU first
        check_device(device, "--device")

    from snnsim.datasets import open_dataset

    dataset = open_dataset(data)

    from snnsim.training import TrainingInterrupted, load_run
    from snnsim.training import train as run_training
    from snnsim.training.display import Display, TensorBoardLog, chain
    from snnsim.training.moved import HEAD, format_moved

    display = Display(quiet=quiet)
    callback: Any = chain(display, TensorBoardLog(folder / "tensorboard")) if tensorboard else display
    began = time.perf_counter()
    try:
        result = run_training(
            *(loaded, dataset, folder),
            seed=seed,
            resume=resume,
            best_test=best_test,
            callback=callback,
            start=None if start is None else load_run(start),
            device=device,
            cuda_graph=cuda_graph,
        )
    except TrainingInterrupted as stop:
        display.close()
        note(f"{stop}; everything so far is in {folder}")
        raise
    finally:
        display.close()
    facts = result.to_dict()
    on_test = result.n_test > 0
    lines = []
    for label, values in facts["results"].items():
        parts = [f"epoch {values['epoch']}"]
        for key, name in (("test_accuracy", "test"), ("valid_accuracy", "validation")):
            if values.get(key) is not None:
                parts.append(f"{name} {100 * values[key]:.2f} %")
        lines.append(f"{label}: " + ", ".join(parts))
    moved = load_run(folder).moved()
    lines += columns([HEAD, *format_moved(moved)])
    lines.append(f"test set used {result.test_run_count} time(s); run folder {folder}")
    emit(
        {
            "accuracy": result.accuracy,
            "n_samples": result.n_test if on_test else None,
            "engine": "torch",
            "spikes": result.spikes,
            "synaptic_operations": result.synaptic_operations,
            "seconds": time.perf_counter() - began,
            "files": [str(folder)],
            "label": result.label,
            "split": "test" if on_test else "valid",
            "results": facts["results"],
            "test_run_count": result.test_run_count,
            "moved": [item.to_dict() for item in moved],
        },
        json,
        "\n".join(lines),
    )
