"""`snnsim data saccades`: events of a simulated camera that looks at handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snnsim.cli.data_encode import clips_bar
from snnsim.cli.output import emit

__all__ = ["saccades"]


def saccades(
    out: Annotated[Path, typer.Option("--out", help="Folder to write Train/ and Test/ into; it must not exist.")],
    threshold: Annotated[
        float, typer.Option("--threshold", help="Change of log brightness that makes an event; smaller: more events.")
    ] = 0.4,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many samples of each part [default: all].")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write events of handwritten digits as N-MNIST has them: three saccades of 100 ms before a camera of 34 x 34.

    The images are those of the data set "digits" (extra "vision"), with its split. The folder opens as any folder of
    event files.
    """
    from snnsim.datasets.saccades import Saccades, write_digit_events

    with clips_bar("looked at", "images") as progress:
        made = write_digit_events(out, Saccades(threshold=threshold), limit=limit, progress=progress)
    samples = made["train"] + made["test"]
    lines = [
        f"{out}: {made['train']} samples to train, {made['test']} to test",
        f"{made['events'] / samples:.0f} events a sample, 300 ms",
        f"use it with --data {out}",
    ]
    emit({**made, "n_samples": samples, "data": str(out)}, json, "\n".join(lines))
