"""`snnsim lr-find`: search a learning rate with a range test."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from snnsim.cli.output import emit, note

__all__ = ["lr_find"]


def lr_find(
    recipe: Annotated[str, typer.Argument(help="Recipe: a name, NAME:VARIANT, or a .toml file.")],
    data: Annotated[str, typer.Option("--data", help="Data set: a name, a folder or a file.")] = "spoken-digits",
    group: Annotated[str, typer.Option("--group", help="Parameters: weights, positions or neuron.")] = "weights",
    first: Annotated[float, typer.Option("--from", help="First learning rate.")] = 1e-7,
    last: Annotated[float, typer.Option("--to", help="Last learning rate.")] = 10.0,
    steps: Annotated[int, typer.Option("--steps", min=3, help="Batches, one learning rate each.")] = 100,
    linear: Annotated[bool, typer.Option("--linear", help="Linear instead of geometric steps.")] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs averaged, each with another seed.")] = 1,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change of the recipe; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="First seed.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Write the table as JSON lines.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Search a learning rate with a range test: one batch a rate, from small to diverging."""
    from snnsim.recipes import load_recipe

    loaded = load_recipe(recipe, changes or [])

    from snnsim.datasets import open_dataset
    from snnsim.training.lr_range import find_learning_rate

    start = time.perf_counter()
    result = find_learning_rate(
        loaded,
        open_dataset(data),
        seed=seed,
        repeats=repeats,
        group=group,
        first=first,
        last=last,
        steps=steps,
        linear=linear,
    )
    if result.warning:
        note(f"warning: {result.warning}")
    files = []
    if out is not None:
        result.write(out)
        files.append(str(out))
    emit(
        {
            "seconds": time.perf_counter() - start,
            "files": files,
            "group": group,
            "steepest": result.steepest,
            "careful": result.careful,
            "stopped_at": result.stopped_at,
            "table": result.table,
        },
        json,
        result.text(),
    )
