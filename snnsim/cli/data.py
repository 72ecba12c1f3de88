"""`snnsim data`: list, inspect, download and convert data sets (and make and encode them)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from snnsim.cli.output import emit, note
from snnsim.errors import InputError

__all__ = ["app", "convert", "get", "info", "ls"]

SETTINGS = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(no_args_is_help=True, context_settings=SETTINGS, rich_markup_mode="rich")


class Audio(StrEnum):
    """What sound becomes."""

    cochlea = "cochlea"


@app.command(epilog="Example: snnsim data ls", context_settings=SETTINGS)
def ls(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the data sets that have a name, and how to get those that have to be downloaded."""
    from snnsim.datasets.download import CATALOGUE
    from snnsim.files import cache_folder

    rows = [
        {"name": "spoken-digits", "get": "comes with snnsim", "about": "English and German digits, synthetic voices"},
        {"name": "digits", "get": "extra vision", "about": "handwritten digits, 1797 images of 8 x 8 pixels"},
        {"name": "sequential-digits", "get": "extra vision", "about": "the same digits row by row, as events"},
        {"name": "sequential-digits-pixels", "get": "extra vision", "about": "pixel by pixel"},
        {"name": "toy", "get": "made when used", "about": "classes that differ only in delays; the answer is known"},
    ]
    rows += [{"name": name, "get": f"snnsim data get {name}", "about": CATALOGUE[name].about} for name in CATALOGUE]
    stored = list((cache_folder() / "events").glob("*.snnev"))
    size = sum(path.stat().st_size for path in stored)
    lines = [f"{row['name']:<14} {row['get']:<22} {row['about']}" for row in rows]
    lines.append(f"cache: {len(stored)} files, {size / 1e6:.1f} MB in {cache_folder()} (may be deleted at any time)")
    lines.append("Any folder with one *_train.h5 and one *_test.h5 in SHD's layout is a data set too: --data FOLDER")
    result = {"datasets": rows, "cache": str(cache_folder()), "cache_bytes": size, "files": [str(p) for p in stored]}
    emit(result, json, "\n".join(lines))


@app.command(epilog="Example: snnsim data info spoken-digits", context_settings=SETTINGS)
def info(
    data: Annotated[str, typer.Argument(help="Data set: a name, a folder or a file.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a data set holds: parts, classes, channels, speakers, spikes a sample, durations."""
    from snnsim.datasets import open_dataset

    dataset = open_dataset(data)
    parts = {name: _describe(part) for name, part in dataset.parts.items()}
    result: dict[str, Any] = {
        "n_samples": sum(part["samples"] for part in parts.values()),
        "name": dataset.name,
        "source": dataset.source,
        "digest": dataset.digest,
        "n_units": dataset.n_units,
        "n_classes": dataset.n_classes,
        "class_names": list(dataset.class_names),
        "unseen_test_speakers": list(dataset.unseen_speakers),
        "parts": parts,
    }
    lines = [f"{dataset.name}: {dataset.n_classes} classes, {dataset.n_units} channels, sha256 {dataset.digest[:16]}"]
    if dataset.class_names:
        lines.append(f"classes: {', '.join(dataset.class_names)}")
    for name, part in parts.items():
        line = f"{name:<6} {part['samples']} samples"
        if part["events_mean"] is not None:
            line += f", events a sample {part['events_mean']:.0f} ({part['events_min']} to {part['events_max']})"
        line += f", {part['seconds_mean']:.3f} s (at most {part['seconds_max']:.3f})"
        if part["speakers"] is not None:
            line += f", {len(part['speakers'])} speakers"
        lines.append(line)
    if dataset.unseen_speakers:
        lines.append(f"speakers only in test: {', '.join(str(item) for item in dataset.unseen_speakers)}")
    emit(result, json, "\n".join(lines))


def _describe(part: Any) -> dict[str, Any]:
    import numpy as np

    from snnsim.datasets.frames import Frames

    n = len(part)
    counts = None if isinstance(part, Frames) or n == 0 else part.counts
    return {
        "samples": n,
        "events_mean": None if counts is None else float(counts.mean()),
        "events_min": None if counts is None else int(counts.min()),
        "events_max": None if counts is None else int(counts.max()),
        "seconds_mean": float(part.duration.mean()) if n else 0.0,
        "seconds_max": float(part.duration.max()) if n else 0.0,
        "speakers": None if part.speakers is None else [int(s) for s in np.unique(part.speakers)],
        "class_counts": np.bincount(part.labels[part.labels >= 0], minlength=part.n_classes).tolist(),
    }


@app.command(epilog="Example: snnsim data get shd --out data/shd", context_settings=SETTINGS)
def get(
    name: Annotated[str, typer.Argument(help="shd, ssc, gsc or fsdd.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to put it into [default: data/NAME].")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Download a published data set over https, checked against published checksums; goes on where it stopped."""
    from snnsim.datasets.download import CATALOGUE, fetch_dataset

    folder = out if out is not None else Path("data") / name
    with _bar() as report:
        files = fetch_dataset(name, folder, report)
    note(CATALOGUE[name].about)
    if CATALOGUE[name].contents is None and any(remote.sha256 is None for remote in CATALOGUE[name].files):
        note(f"checked against the published md5; no sha256 is published: the one found is kept in {folder}/SHA256SUMS")
    target = files[0] if CATALOGUE[name].unpack else folder
    use = f"use it with --data {target}"
    if name == "fsdd":
        use = (
            f"encode it:  snnsim data encode {target} --name-pattern '{{label}}_{{speaker}}_{{index}}' --test 'index<5'"
        )
    text = "\n".join([*(str(path) for path in files), use])
    emit({"files": [str(path) for path in files], "data": str(target)}, json, text)


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a progress bar on standard error; yields a function of name, done and total."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        yield report


@app.command(epilog="Example: snnsim data convert N-MNIST data/nmnist", context_settings=SETTINGS)
def convert(
    source: Annotated[str, typer.Argument(help="Folder, file or name; or tonic:NAME for a data set of tonic.")],
    out: Annotated[Path, typer.Argument(help="Folder to write NAME_train.h5, NAME_test.h5, ... into.")],
    name: Annotated[str | None, typer.Option("--name", help="NAME [default: that of the source].")] = None,
    sort: Annotated[
        bool, typer.Option("--sort", help="Sort samples whose times descend; else they are refused.")
    ] = False,
    units: Annotated[
        int | None, typer.Option("--units", help="Number of channels, where the file understates it.")
    ] = None,
    audio: Annotated[
        Audio | None, typer.Option("--audio", help="What a folder of Speech Commands becomes: cochlea spikes.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert event files, sound folders or tonic data sets to spike files in SHD's layout."""
    from snnsim.datasets.dataset import Dataset, open_dataset
    from snnsim.datasets.frames import Frames
    from snnsim.datasets.heidelberg_write import write_heidelberg

    dataset: Dataset
    if source.startswith("tonic:"):
        dataset = _from_tonic(source.removeprefix("tonic:"), out)
    elif audio is Audio.cochlea:
        from snnsim.datasets.speech_commands import open_speech_commands

        with _bar() as report:
            dataset = open_speech_commands(
                source, audio="cochlea", progress=lambda done, total: report("clips", done, total), notice=note
            )
    else:
        dataset = open_dataset(source, n_units=units, sort=sort)
    if any(isinstance(part, Frames) for part in dataset.parts.values()):
        raise InputError(
            f"{source} holds dense frames, not events; sound is encoded with --audio cochlea, images train as they are"
        )
    files = []
    for split, part in dataset.parts.items():
        path = out / f"{name or dataset.name}_{split}.h5"
        write_heidelberg(path, part)
        files.append(str(path))
    samples = sum(len(part) for part in dataset.parts.values())
    emit({"n_samples": samples, "files": files}, json, "\n".join([*files, f"use it with --data {out}"]))


def _from_tonic(name: str, out: Path) -> Any:
    from snnsim.datasets.dataset import Dataset
    from snnsim.datasets.tonic_adapter import open_tonic

    folder = out / "tonic"
    train = open_tonic(name, folder, train=True)
    test = open_tonic(name, folder, train=False)
    return Dataset(name.lower(), train, test, None, train.digest(), f"tonic {name}")


def _mount() -> None:
    """Add the commands that make data, each in its own file."""
    from importlib import import_module

    for command, example in (
        ("make", "snnsim data make spoken-digits --out data/digits"),
        ("saccades", "snnsim data saccades --out data/digits-events"),
        ("encode", "snnsim data encode *.wav --out spikes.h5"),
    ):
        function = getattr(import_module(f"snnsim.cli.data_{command}"), command)
        app.command(command, epilog=f"Example: {example}", context_settings=SETTINGS)(function)


_mount()
