"""`snnsim quantize`: a network in the integers of a chip, with what changed."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from snnsim.cli.given import refuse_given
from snnsim.cli.output import emit, note
from snnsim.cli.sources import open_source, training_samples

__all__ = ["quantize"]


class Scale(StrEnum):
    """Whose weights share a scale."""

    auto = "auto"
    layer = "layer"
    neuron = "neuron"


class Delays(StrEnum):
    """What to do with delays beyond the target's."""

    refuse = "refuse"
    clamp = "clamp"


class Decays(StrEnum):
    """What to do with time constants that differ where the target has one a population."""

    refuse = "refuse"
    mean = "mean"


class Headroom(StrEnum):
    """What room membranes and currents get."""

    auto = "auto"
    bound = "bound"
    observed = "observed"


def quantize(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_NETWORK", help="Run folder or network file (.snn.h5).")],
    profile: Annotated[str, typer.Option("--profile", help="Limits profile: a name or a JSON file.")] = "loihi2",
    out: Annotated[Path | None, typer.Option("--out", help="File to write (default: beside the source).")] = None,
    calibrate: Annotated[
        str | None, typer.Option("--calibrate", metavar="DATA", help="Data set whose training samples set the scales.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Calibration samples.")] = 64,
    scale: Annotated[Scale, typer.Option("--scale", help="Whose weights share a scale.")] = Scale.auto,
    delays: Annotated[
        Delays, typer.Option("--delays", help="Refuse or clamp delays that are too long.")
    ] = Delays.refuse,
    decays: Annotated[
        Decays, typer.Option("--decays", help="Refuse differing time constants where there can be one, or average.")
    ] = Decays.refuse,
    headroom: Annotated[
        Headroom,
        typer.Option("--headroom", help="Room for any input, for what calibration shows, or the finer one."),
    ] = Headroom.auto,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Quantise a network for a chip and say what changed; `snnsim eval --as` measures the accuracy."""
    begin = time.perf_counter()
    from snnsim.limits import load_profile
    from snnsim.quantize import QuantizeOptions
    from snnsim.quantize import quantize as run_quantize

    if calibrate is None:
        refuse_given(context, "only --calibrate takes samples; add it", only=("samples",))
    chosen = load_profile(profile)
    network, stem, run = open_source(source)
    path = out if out is not None else stem.with_name(f"{stem.name}.{chosen.name}.int.h5")
    options: dict[str, Any] = {"scale": scale.value, "delays": delays.value, "decays": decays.value}
    options |= {"headroom": headroom.value, "calibration_samples": samples}
    events = None
    if calibrate is not None:
        events = training_samples(calibrate, network, run, samples, "--calibrate")
        note("calibrating ...")
    tail = network.noted_steps("tail_steps")
    integer, report = run_quantize(
        network, chosen, options=QuantizeOptions(**options), calibration=events, tail_steps=tail
    )
    integer.save(path)
    lines = [f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)", *(f"  {line}" for line in report.sentences())]
    result = {"files": [path], "changes": list(report.changes), "seconds": time.perf_counter() - begin}
    emit(result | {"report": report.to_json()}, json=json, text="\n".join(lines))
