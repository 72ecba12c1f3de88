"""`snnsim data encode`: sound files to cochlea spike trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from snnsim.cli.output import emit, note
from snnsim.errors import InputError

__all__ = ["clips_bar", "encode"]


class Membrane(StrEnum):
    """Models of the basilar membrane."""

    hydrodynamic = "hydrodynamic"
    gammatone = "gammatone"


class Direction(StrEnum):
    """Direction of the delay along the membrane."""

    published = "published"
    causal = "causal"


def encode(
    sounds: Annotated[list[Path], typer.Argument(help="Sound files, or folders of them.")],
    out: Annotated[
        Path, typer.Option("--out", help="File to write (.h5 or .h5.gz), or a folder when --test is given.")
    ],
    name_pattern: Annotated[
        str | None,
        typer.Option(
            "--name-pattern",
            help="What file names say: fields {label}, {speaker}, {index}, {skip}; a slash takes folders in.",
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option("--test", help="Which files are for testing: a rule such as 'index<10' or 'speaker=ada,leo'."),
    ] = None,
    valid: Annotated[str | None, typer.Option("--valid", help="Which of the others are for validation.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="NAME of NAME_train.h5, NAME_test.h5 [default: the folder's].")
    ] = None,
    channels: Annotated[int, typer.Option("--channels", help="Places of the inner ear.")] = 700,
    membrane: Annotated[
        Membrane, typer.Option("--membrane", help="Model; gammatone needs no preparation but gives other spikes.")
    ] = Membrane.hydrodynamic,
    orientation: Annotated[
        Direction, typer.Option("--orientation", help="published: as SHD, low places lead; causal: they lag.")
    ] = Direction.published,
    ramp: Annotated[
        str, typer.Option("--ramp", help="Seconds of ramp at both ends, or clip for the whole clip.")
    ] = "0.03",
    max_seconds: Annotated[
        float | None, typer.Option("--max-seconds", help="Cut the sound after this many seconds.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed: other noise in the auditory fibres.")] = 0,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Files encoded at the same time [default: one a processor].")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn sound files into spike trains with a model of the inner ear, in SHD's file layout.

    Without --name-pattern the files have no labels that mean anything (all are class 0). With --test, --out is a
    folder that gets NAME_train.h5 and NAME_test.h5 and can be given to --data.
    """
    begin = time.perf_counter()
    from snnsim.datasets.cochlea import Encoder
    from snnsim.datasets.recordings import NamePattern, Recording, Rule, class_order, find_audio

    encoder = Encoder(
        channels=channels,
        membrane=membrane.value,
        orientation=orientation.value,
        ramp=_ramp(ramp),
        max_seconds=max_seconds,
    )
    files = find_audio(sounds)
    pattern = None if name_pattern is None else NamePattern(name_pattern)
    recordings = [Recording(path) if pattern is None else pattern.read(path) for path in files]
    if (test or valid) and pattern is None:
        raise InputError("--test and --valid choose by what names say: give --name-pattern, e.g. '{label}_{index}'")
    if valid and not test:
        raise InputError("--valid chooses among the files that are not for testing: give --test as well")
    chosen: dict[str, list[Recording]] = {}
    rules = {"test": Rule(test)} if test else {}
    rules |= {"valid": Rule(valid)} if valid else {}
    for recording in recordings:
        split = next((split for split, rule in rules.items() if rule.holds(recording)), "train")
        chosen.setdefault(split, []).append(recording)
    for split in ("train", *rules):
        if not chosen.get(split):
            raise InputError(f"no file is for {split}: check the rules and the name pattern")
    paths = _paths(out, name, list(chosen), bool(test))
    classes = class_order([recording.label for recording in recordings])
    speakers = class_order([recording.speaker for recording in recordings])
    spikes: dict[str, int] = {}
    with clips_bar("encoded") as progress:
        done = 0
        for split, members in chosen.items():
            count = _Offset(progress, done, len(files))
            spikes[split] = _write(paths[split], members, classes, speakers, encoder, seed, threads, count)
            done += len(members)
    lines = [
        f"{paths[split]}: {len(members)} clips, {spikes[split] / len(members):.0f} spikes a clip"
        for split, members in chosen.items()
    ]
    lines.append(f"{len(classes)} classes, {len(speakers)} speakers; use it with --data {out}")
    result = {
        "n_samples": len(files),
        "spikes": sum(spikes.values()) / len(files),
        "seconds": time.perf_counter() - begin,
        "files": [paths[split] for split in chosen],
        "classes": classes,
        "clips": {split: len(members) for split, members in chosen.items()},
    }
    emit(result, json, "\n".join(lines))


class _Offset:
    """Progress of one file among several."""

    def __init__(self, progress: Callable[[int, int], None], done: int, total: int) -> None:
        self.progress, self.done, self.total = progress, done, total

    def __call__(self, done: int, _total: int) -> None:
        self.progress(self.done + done, self.total)


def _ramp(text: str) -> Any:
    if text == "clip":
        return "clip"
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"--ramp: expected seconds or 'clip', got {text!r}") from error


def _paths(out: Path, name: str | None, splits: list[str], is_folder: bool) -> dict[str, Path]:
    packed = out.name.endswith(".h5.gz")
    if is_folder:
        if packed or out.suffix == ".h5":
            raise InputError(f"--out {out}: with --test it is a folder, which gets NAME_train.h5 and NAME_test.h5")
        title = name or out.resolve().name
        return {split: out / f"{title}_{split}.h5" for split in splits}
    if not packed and out.suffix != ".h5":
        raise InputError(f"--out {out}: expected a file .h5 or .h5.gz; give --test to split into a folder")
    if name is not None:
        raise InputError("--name is for the files in a folder, which --test makes")
    return {"train": out}


def _write(
    path: Path,
    members: list[Any],
    classes: list[str],
    speakers: list[str],
    encoder: Any,
    seed: int,
    threads: int | None,
    progress: Callable[[int, int], None],
) -> int:
    from snnsim.datasets.cochlea import encode_files
    from snnsim.datasets.heidelberg_write import write_spike_file

    has_index = all(member.index is not None for member in members)
    has_speakers = any(speakers)
    return write_spike_file(
        path,
        encode_files(
            [m.path for m in members], seed=seed, encoder=encoder, threads=threads, progress=progress, notice=note
        ),
        [classes.index(member.label) for member in members],
        n_units=encoder.channels,
        keys=[name or "sound" for name in classes],
        speakers=[speakers.index(member.speaker) for member in members] if has_speakers else None,
        recordings=[member.index for member in members] if has_index else None,
        meta_info={"speaker_name": speakers} if has_speakers else None,
        attributes={
            "encoder": encoder.description(),
            "seed": seed,
            "seed_rule": "CRC-32 of the file's name without extension, the seed in the upper 32 bits",
        },
    )


@contextmanager
def clips_bar(verb: str, what: str = "clips") -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error: a bar in a terminal, else a line at every tenth.

    Args:
        verb: What is done to clips, for the text.
        what: What they are called.

    Yields:
        Function of clips done and clips in all.
    """
    if not sys.stderr.isatty():
        said = [0]

        def lines(done: int, total: int) -> None:
            if done * 10 // total > said[0] or done == total:
                said[0] = done * 10 // total
                note(f"{verb} {done}/{total} {what}")

        yield lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(what, total=None)

        def bar(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield bar
