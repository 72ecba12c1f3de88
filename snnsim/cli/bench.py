"""`snnsim bench`: how fast data come and how fast training goes, on this machine."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from snnsim.cli.output import emit, note

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.command("data", epilog="Example: snnsim bench data")
def data(
    file: Annotated[
        Path | None, typer.Argument(help="Plain .h5 file in the SHD layout; by default the built-in training file.")
    ] = None,
    dt: Annotated[float, typer.Option("--dt", help="Width of a frame in seconds.")] = 0.01,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Pairs of measurements.")] = 5,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Samples a measurement.")] = 64,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time reading samples and making frames against tonic on the same file, in turn; needs the extra "data"."""
    from dataclasses import asdict

    from snnsim.datasets.bench_data import bench_data, format_comparisons
    from snnsim.datasets.dataset import BUILTIN

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="snnsim-bench-") as folder:
        path = file
        if path is None:
            path = Path(folder) / "spoken_digits_train.h5"
            with gzip.open(BUILTIN / f"{path.name}.gz") as packed, open(path, "wb") as plain:
                shutil.copyfileobj(packed, plain)
        note("reading samples in turn with tonic ...")
        rows = bench_data(path, dt=dt, rounds=rounds, samples=samples)
    result = {
        "n_samples": rows[0].samples,
        "seconds": time.perf_counter() - begin,
        "comparisons": [asdict(row) for row in rows],
    }
    emit(result, json, format_comparisons(rows))


@app.command("train", epilog="Example: snnsim bench train spoken-digits")
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe: a name, NAME:VARIANT, or a .toml file.")],
    dataset: Annotated[str, typer.Option("--data", help="Data set: a name, a folder or a file.")] = "spoken-digits",
    epochs: Annotated[int, typer.Option("--epochs", min=2, help="Epochs; the first one warms up.")] = 3,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change of the recipe; may be repeated.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a few epochs in a temporary folder and say how many samples a second that was."""
    import statistics

    from snnsim.datasets import open_dataset
    from snnsim.recipes import load_recipe
    from snnsim.training import train as run_training
    from snnsim.training.display import Display

    loaded = load_recipe(recipe, [*(changes or []), f"train.epochs={epochs}"])
    opened = open_dataset(dataset)
    speeds: list[float] = []
    display = Display()

    def watch(kind: str, facts: dict[str, object]) -> None:
        display(kind, facts)
        if kind == "epoch":
            speeds.append(float(str(facts["samples_per_second"])))

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="snnsim-bench-") as folder:
        try:
            run_training(loaded, opened, Path(folder) / "run", callback=watch)
        finally:
            display.close()
    median = statistics.median(speeds[1:])
    result = {
        "n_samples": len(opened.train),
        "engine": "torch",
        "seconds": time.perf_counter() - begin,
        "samples_per_second": median,
        "first_epoch_samples_per_second": speeds[0],
    }
    text = f"{median:.0f} samples/s in training (median of {len(speeds) - 1} epochs; the first one {speeds[0]:.0f})"
    emit(result, json, text)
