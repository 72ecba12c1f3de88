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
    recipe: Annotated[
        str,
        typer.Argument(help="Recipe: a name, NAME:VARIANT, or a .toml file; or a study: meta-neuron, lnp, hardware."),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="Data set: a name, a folder or a file [default: spoken-digits]. A study takes several, also "
            "sources:KIND (meta-neuron) or names of tasks (lnp); hardware takes one [default: the study's own].",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, help="Number of seeds: 0, 1, ... [default: 3; a study: 5; hardware: 1]."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the runs [default: runs/RECIPE].")] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            "--protocol",
            help="refit: train on everything, test the last epoch; holdout: choose the epoch on held-out samples "
            "[default: refit].",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change of the recipe; may be repeated.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Same as --set train.epochs=N.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="lnp, hardware: a trial in small sizes, from which nothing may be claimed.")
    ] = False,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="hardware: a trained run instead of a network of its own."),
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            "--python", metavar="TARGET=PATH", help="hardware: interpreter of a chip's program, as in snnsim export."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings only while training.")] = False,
) -> None:
    """Train a recipe with several seeds and put mean and spread beside the published number; repeat to continue."""
    from snnsim.cli.reproduce_study import STUDIES, run_hardware, run_lnp, run_study
    from snnsim.errors import InputError
    from snnsim.recipes import load_recipe

    if recipe != "hardware" and (run is not None or python):
        raise InputError(f"reproduce {recipe}: {'--run' if run is not None else '--python'} is of the study hardware")
    if recipe in STUDIES:
        given = {"--set": changes, "--epochs": epochs, "--protocol": protocol}
        wrong = [name for name, value in given.items() if value]
        if wrong:
            raise InputError(f"reproduce {recipe}: is a study, which has no {wrong[0]}; leave it out")
        folder, number = out or Path("runs") / (f"{recipe}-quick" if quick else recipe), 5 if seeds is None else seeds
        if recipe == "hardware":
            from snnsim.cli.export import interpreters

            if data is not None and len(data) > 1:
                raise InputError(f"reproduce hardware: expected one data set, got {len(data)}")
            name = data[0] if data else "spoken-digits"
            run_hardware(name, 1 if seeds is None else seeds, folder, run, interpreters(python), json, quiet, quick)
            return
        if recipe == "lnp":
            run_lnp(data or [], number, folder, json, quiet, quick)
            return
        if quick:
            raise InputError(f"reproduce {recipe}: has no --quick, lnp and hardware have; leave it out")
        run_study(data or [], number, folder, json, quiet)
        return
    if quick:
        raise InputError(
            f"reproduce {recipe}: --quick is of the studies lnp and hardware; use --set or --epochs for a shorter run"
        )
    if data is not None and len(data) > 1:
        raise InputError(f"reproduce {recipe}: expected one data set, got {len(data)}")

    extra = [] if epochs is None else [f"train.epochs={epochs}"]
    loaded = load_recipe(recipe, [*(changes or []), *extra])
    folder = out or Path("runs") / loaded.name

    from snnsim.datasets import open_dataset
    from snnsim.training import reproduce as run_seeds
    from snnsim.training.display import Display

    start = time.perf_counter()
    result = run_seeds(
        loaded,
        open_dataset(data[0] if data else "spoken-digits"),
        folder,
        seeds=range(3 if seeds is None else seeds),
        protocol=(protocol or Protocol.refit).value,
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
