"""`snnsim bench`: speed and memory beside other libraries, on this machine."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnsim.cli.bench_complexity import complexity
from snnsim.cli.bench_cuda import cuda
from snnsim.cli.bench_density import density
from snnsim.cli.bench_integer import integer
from snnsim.cli.bench_options import Json, Names, Pythons, Rounds, Threads, interpreters
from snnsim.cli.bench_sim import scaling, simulation
from snnsim.cli.bench_sparse import sparse
from snnsim.cli.output import emit, note

if TYPE_CHECKING:
    from snnsim.bench.tasks import Task

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)
app.command("sim", epilog="Example: snnsim bench sim cuba --threads 1")(simulation)
app.command("scaling", epilog="Example: snnsim bench scaling neurons")(scaling)
app.command("complexity", epilog="Example: snnsim bench complexity")(complexity)


app.command("cuda", epilog="Example: snnsim bench cuda lif --out report.md")(cuda)
app.command("density", epilog="Example: snnsim bench density delays --engine clock")(density)
app.command("integer", epilog="Example: snnsim bench integer --python lava=.venv-lava/bin/python")(integer)
app.command("sparse", epilog="Example: snnsim bench sparse --steps 100")(sparse)


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

    begin = time.perf_counter()
    with _plain_file(file) as path:
        note("reading samples in turn with tonic ...")
        rows = bench_data(path, dt=dt, rounds=rounds, samples=samples)
    result = {
        "n_samples": rows[0].samples,
        "seconds": time.perf_counter() - begin,
        "comparisons": [asdict(row) for row in rows],
    }
    emit(result, json, format_comparisons(rows))


@app.command("train", epilog="Example: snnsim bench train plain layer")
def train(
    names: Names = None,
    rounds: Rounds = 5,
    threads: Threads = None,
    pythons: Pythons = None,
    json: Json = False,
) -> None:
    """Time training steps and their memory against other libraries, in turn; peers that are missing are named."""
    _compare_all(_tasks(names, "train"), rounds, threads, pythons, json)


@app.command("infer", epilog="Example: snnsim bench infer")
def infer(
    names: Names = None,
    rounds: Rounds = 5,
    threads: Threads = None,
    pythons: Pythons = None,
    json: Json = False,
) -> None:
    """Time the evaluation of a batch against other libraries, in turn."""
    _compare_all(_tasks(names, "evaluate"), rounds, threads, pythons, json)


@app.command("memory", epilog="Example: snnsim bench memory plain plain-long")
def memory(
    names: Names = None,
    steps: Annotated[
        list[int] | None, typer.Option("--steps", min=1, help="Time steps instead of the task's; may be repeated.")
    ] = None,
    threads: Threads = None,
    pythons: Pythons = None,
    json: Json = False,
) -> None:
    """Measure how far the resident memory rises in training steps, beside other libraries, along time if asked."""
    from dataclasses import replace

    tasks = _tasks(names, "train")
    if steps:
        tasks = [replace(task, name=f"{task.name}-{many}", n_steps=many) for task in tasks for many in steps]
    _compare_all(tasks, 0, threads, pythons, json)


@app.command("epoch", epilog="Example: snnsim bench epoch --data shd_train.h5")
def epoch(
    dataset: Annotated[
        Path | None, typer.Option("--data", help="Training file in the SHD layout; by default the built-in digits.")
    ] = None,
    rounds: Rounds = 3,
    threads: Threads = None,
    pythons: Pythons = None,
    json: Json = False,
) -> None:
    """Time whole epochs of the delay paper's network, data path included, against its libraries, in turn."""
    from dataclasses import replace

    from snnsim.bench.tasks import TASKS
    from snnsim.datasets import open_dataset
    from snnsim.errors import InputError

    with _plain_file(dataset) as path:
        if not path.is_file() or path.suffix != ".h5":
            raise InputError(f"--data: expected a plain .h5 file, which both sides can read, got {str(path)!r}")
        open_dataset(path.resolve())  # what is wrong with it is said here
        task = replace(TASKS["shd-delay-epoch"], data=str(path.resolve()))
        _compare_all([task], rounds, threads, pythons, json)


@app.command("products", epilog="Example: snnsim bench products")
def products(threads: Threads = None, json: Json = False) -> None:
    """Measure up to which density events of an input, or synapses of a mask, beat a dense product."""
    from snnsim.bench.products import format_break_evens, measure_break_evens
    from snnsim.bench.sparse import format_sparse_evens, measure_sparse_evens
    from snnsim.machine import usable_cores
    from snnsim.nn.formulation import EVENT_DENSITY, SPARSE_DENSITY

    begin = time.perf_counter()
    note("products and weight gradients at several densities ...")
    rows = measure_break_evens(threads or usable_cores())
    masks = measure_sparse_evens(threads or usable_cores())
    result = {
        "seconds": time.perf_counter() - begin,
        "event_density": EVENT_DENSITY,
        "break_evens": [row.to_json() for row in rows],
        "sparse_density": SPARSE_DENSITY,
        "sparse_break_evens": [row.to_json() for row in masks],
    }
    emit(result, json, f"{format_break_evens(rows)}\n{format_sparse_evens(masks)}")


def _tasks(names: list[str] | None, what: str) -> list[Task]:
    from snnsim.bench.tasks import choose_tasks

    return choose_tasks(names or [], what)


@contextmanager
def _plain_file(file: Path | None) -> Iterator[Path]:
    """Give a file, or the built-in training file unpacked."""
    from snnsim.datasets.dataset import BUILTIN

    if file is not None:
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="snnsim-bench-") as folder:
        path = Path(folder) / "spoken_digits_train.h5"
        with gzip.open(BUILTIN / f"{path.name}.gz") as packed, open(path, "wb") as plain:
            shutil.copyfileobj(packed, plain)
        yield path


def _compare_all(tasks: list[Task], rounds: int, threads: int | None, pythons: list[str] | None, json: bool) -> None:
    import platform

    from snnsim.bench.pairs import compare, format_comparison
    from snnsim.bench.roofline import measure_roofline
    from snnsim.machine import usable_cores

    begin = time.perf_counter()
    elsewhere = interpreters(pythons, (peer for task in tasks for peer in task.peers))
    count = threads or usable_cores()
    roof = measure_roofline(count)
    machine = f"{platform.machine()}, {count} threads"
    ceilings = f"{roof.operations / 1e9:.0f} GFLOP/s in float32, copies {roof.copy_bytes / 1e9:.0f} GB/s"
    done = []
    if not json:
        print(f"{machine}: products reach {ceilings}", flush=True)
    for task in tasks:
        done.append(compare(task, rounds=rounds, threads=count, pythons=elsewhere, tell=note))
        if not json:
            print(format_comparison(done[-1], roof.operations), flush=True)
    result = {
        "seconds": time.perf_counter() - begin,
        "machine": machine,
        "threads": count,
        "roofline": {"operations": roof.operations, "copy_bytes": roof.copy_bytes},
        "comparisons": [comparison.to_json() for comparison in done],
    }
    if json:
        emit(result, json, "")


@app.command("recipe", epilog="Example: snnsim bench recipe spoken-digits")
def recipe_speed(
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
    shares: list[float] = []
    display = Display()

    def watch(kind: str, facts: dict[str, object]) -> None:
        display(kind, facts)
        if kind == "epoch":
            speeds.append(float(str(facts["samples_per_second"])))
            shares.append(float(str(facts["waiting_share"])))

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="snnsim-bench-") as folder:
        try:
            run_training(loaded, opened, Path(folder) / "run", callback=watch)
        finally:
            display.close()
    median = statistics.median(speeds[1:])
    share = statistics.median(shares[1:])
    result = {
        "n_samples": len(opened.train),
        "engine": "torch",
        "seconds": time.perf_counter() - begin,
        "samples_per_second": median,
        "first_epoch_samples_per_second": speeds[0],
        "waiting_share": share,
    }
    text = f"{median:.0f} samples/s in training (median of {len(speeds) - 1} epochs; the first one {speeds[0]:.0f})"
    text += f", {100 * share:.1f} % of the time waiting for batches"
    emit(result, json, text)
