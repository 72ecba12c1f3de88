"""`snnsim reproduce`: a recipe over several seeds, beside the published number and its protocol."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from snnsim.cli.output import emit

__all__ = ["reproduce"]


class Protocol(StrEnum):
    """How the epoch is chosen and what is trained on."""

    refit = "refit"
    holdout = "holdout"


def reproduce(
    recipe: Annotated[str, typer.Argument(help="Recipe: a name, NAME:VARIANT, or a .toml file.")],
    data: Annotated[str, typer.Option("--data", help="Data set: a name, a folder or a file.")] = "spoken-digits",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds: 0, 1, ...")] = 3,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the runs [default: runs/RECIPE].")] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(
            "--protocol",
            help="refit: train on everything, test the last epoch; holdout: choose the epoch on held-out samples.",
        ),
    ] = Protocol.refit,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change of the recipe; may be repeated.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Same as --set train.epochs=N.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings only while training.")] = False,
) -> None:
    """Train a recipe with several seeds and put mean and spread beside the published number; repeat to continue."""
    from snnsim.recipes import load_recipe

    extra = [] if epochs is None else [f"train.epochs={epochs}"]
    loaded = load_recipe(recipe, [*(changes or []), *extra])
    folder = out or Path("runs") / loaded.name

    from snnsim.datasets import open_dataset
    from snnsim.training import reproduce as run_seeds
    from snnsim.training.display import Display

    start = time.perf_counter()
    result = run_seeds(
        loaded,
        open_dataset(data),
        folder,
        seeds=range(seeds),
        protocol=protocol.value,
        callback=lambda: Display(quiet=quiet),
    )
    emit(
        {
            "accuracy": result.mean,
            "n_samples": result.n_test,
            "engine": "torch",
            "seconds": time.perf_counter() - start,
            "files": [str(path) for path in result.paths],
            **result.to_dict(),
        },
        json,
        result.text(),
    )
