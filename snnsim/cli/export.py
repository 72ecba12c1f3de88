"""`snnsim export`: write a network for another program, say what changed, prove that the same spikes come out."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnsim.cli.given import refuse_given
from snnsim.cli.output import emit, note
from snnsim.cli.sources import open_source, training_samples
from snnsim.errors import InputError

if TYPE_CHECKING:
    from snnsim.integer_network import IntegerNetwork
    from snnsim.network import Network

__all__ = ["export", "interpreters"]


class Delays(StrEnum):
    """What to do with delays, for targets where they are a question."""

    delay_node = "delay-node"
    error = "error"
    drop_with_report = "drop-with-report"


class Reader(StrEnum):
    """Programs that a NIR file can be written for."""

    norse = "norse"
    snntorch = "snntorch"
    spikingjelly = "spikingjelly"


def export(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_NETWORK", help="Run folder or network file (.snn.h5; targets in integers: also .int.h5)."
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="Format: nir, sonata, c99, lava, xylo or sana-fe. With --dry-run also a limits profile or its file.",
        ),
    ] = "nir",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File, for c99 and sonata the folder, to write (default: beside the source)."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run the file with an independent program and compare every spike.")
    ] = False,
    events: Annotated[
        str | None,
        typer.Option("--events", help="Data set whose training samples the check runs (default: generated input)."),
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="Samples of the check, at least, and of --calibrate, up to 64.")
    ] = 200,
    delays: Annotated[
        Delays | None,
        typer.Option("--delays", help="nir: write delays (default), refuse a network that has any, or drop them."),
    ] = None,
    stop_steps: Annotated[
        bool, typer.Option("--drop-stop-steps", help="nir: let populations that stop early run to the end.")
    ] = False,
    prefix: Annotated[
        str | None, typer.Option("--prefix", help="c99: what names in C begin with (default snn).")
    ] = None,
    weight_bits: Annotated[int | None, typer.Option("--weight-bits", help="c99: 8 (default) or 16.")] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale", help="c99: a scale for each neuron (default) or layer; lava, xylo: also auto (default)."
        ),
    ] = None,
    max_count: Annotated[
        int | None, typer.Option("--max-count", help="c99: most events of one input unit in a step (default 32).")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option("--calibrate", help="Integer targets: data set on whose training samples scales are chosen."),
    ] = None,
    clamp_delays: Annotated[
        bool, typer.Option("--clamp-delays", help="lava: clamp delays beyond 62 steps and count them.")
    ] = False,
    python: Annotated[
        list[str] | None,
        typer.Option(
            "--python",
            metavar="TARGET=PATH",
            help="Interpreter that has the program a check runs (lava, xylo, sana-fe), if not this one.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing: say whether the target can hold the network.")
    ] = False,
    reader: Annotated[
        Reader | None,
        typer.Option("--for", help="Write a NIR file for this program's importer; refuse what it cannot hold."),
    ] = None,
    integrators: Annotated[
        bool, typer.Option("--drop-integrators", help="With --for: leave populations without threshold out.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a network for another program and prove that the same spikes come out."""
    begin = time.perf_counter()
    from snnsim.export import TARGETS, export_network, prove_export

    if dry_run:
        reason = "a dry run looks at the network and the target only; leave one of the two out"
        refuse_given(context, reason, but=("target", "dry_run", "json"))
        _dry_run(source, target, begin, json)
        return
    if target not in TARGETS:
        from snnsim.limits import profile_names

        hint = "; it can only be checked: add --dry-run" if target in profile_names() else ""
        raise InputError(f"--target: expected one of {', '.join(sorted(TARGETS))}, got {target!r}{hint}")
    if events is not None and not check:
        raise InputError("--events: only a check runs events; add --check")
    if not check and calibrate is None:
        refuse_given(context, "only a check and --calibrate take samples; add --check", only=("samples",))
    network, stem, run = _open(source)
    if hasattr(network, "law"):
        reason = f"{source} is in integers already; quantise its float network in another way"
        refuse_given(context, reason, only=("weight_bits", "scale", "calibrate"))
    path = out if out is not None else stem.with_name(stem.name + TARGETS[target].suffix)
    if integrators and reader is None:
        raise InputError("--drop-integrators: only files for one program go without them; add --for PROGRAM")
    chosen = None if calibrate is None else training_samples(calibrate, network, run, samples, "--calibrate")
    options = _options(
        target,
        nir={
            **{"--delays": delays, "--drop-stop-steps": stop_steps or None},
            **{"--for": reader, "--drop-integrators": integrators or None},
        },
        c99={
            **{"--prefix": prefix, "--weight-bits": weight_bits, "--scale": scale, "--max-count": max_count},
            "--calibrate": chosen,
        },
        lava={
            "--scale": scale,
            "--calibrate": chosen,
            "--clamp-delays": clamp_delays or None,
        },
        **{"sana-fe": {"--scale": scale, "--calibrate": chosen}},
        xylo={"--scale": scale, "--calibrate": chosen},
    )
    pythons = interpreters(python, check)
    report = export_network(network, target, path, **options)
    proof_path = path / "proof.json" if TARGETS[target].folder else path.with_name(path.name + ".proof.json")
    proof_path.unlink(missing_ok=True)  # that of an earlier export says nothing about this one
    files = [path]
    size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    lines = [f"wrote {path} ({size / 1e6:.2f} MB)", *(f"  {change}" for change in report.changes)]
    result: dict[str, Any] = {"files": files, "changes": list(report.changes), "latency": report.latency}
    holds = True
    if check:
        given = None if events is None else training_samples(events, network, run, samples)
        note("checking with another program ...")
        settings: dict[str, Any] = {"events": given, "n_samples": samples}
        if pythons:
            settings["pythons"] = pythons
        proof = prove_export(network, target, path, options=options, **settings)
        files.append(proof.save(proof_path))
        lines += ["proof:", *(f"  {sentence}" for sentence in proof.sentences()), f"wrote {proof_path}"]
        result |= {
            "n_samples": proof.n_samples,
            "engine": proof.reference,
            "spikes": proof.spikes,
            "mismatches": proof.mismatches,
            "compared": proof.compared,
            "proof_holds": proof.holds,
        }
        holds = proof.holds
    emit(result | {"seconds": time.perf_counter() - begin}, json=json, text="\n".join(lines))
    if not holds:
        raise typer.Exit(1)


NAMES = {
    "--delays": "delays",
    "--drop-stop-steps": "stop_steps",
    "--for": "reader",
    "--drop-integrators": "integrators",
    "--max-count": "counts",
    "--weight-bits": "weight_bits",
}
"""Option of a target's writer by option of the command, where they differ."""


def _options(target: str, **given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a target's writer; refuse those of other targets."""
    known = given.get(target, {})
    for other, values in given.items():
        wrong = [name for name, value in values.items() if value is not None and name not in known]
        if wrong:
            raise InputError(f"{wrong[0]}: this is an option of --target {other}, not of {target}")
    options: dict[str, Any] = {}
    for name, value in given.get(target, {}).items():
        if value is not None:
            options[NAMES.get(name, name[2:])] = value.value if isinstance(value, StrEnum) else value
    for name in ("stop_steps", "integrators"):
        if name in options:
            options[name] = "drop-with-report"
    if options.pop("clamp-delays", None):
        options["delays"] = "clamp"
    return options


def interpreters(entries: list[str] | None, check: bool = True) -> dict[str, str]:
    """Return interpreters by name of their program, from entries ``NAME=PATH``."""
    from snnsim.export.oracle import ORACLES

    pythons: dict[str, str] = {}
    for entry in entries or []:
        name, _, path = entry.partition("=")
        if name not in ORACLES or not path:
            raise InputError(f"--python: expected NAME=PATH with one of {', '.join(ORACLES)}, got {entry!r}")
        if not check:
            raise InputError("--python: only a check runs another program; add --check")
        pythons[name] = path
    return pythons


def _open(source: Path) -> tuple[Network | IntegerNetwork, Path, Any]:
    """Return the network, the path that its export is named after, and the run if it is one."""
    if source.name.endswith(".int.h5"):
        from snnsim.integer_network import IntegerNetwork

        return IntegerNetwork.load(source), source.with_name(source.name.removesuffix(".int.h5")), None
    return open_source(source)


def _dry_run(source: Path, target: str, begin: float, json: bool) -> None:
    """Check a network against the limits of a target and try its writer; status 1 if it does not fit."""
    from tempfile import TemporaryDirectory

    from snnsim.export import TARGETS, export_network
    from snnsim.limits import load_profile
    from snnsim.target_check import check

    name = TARGETS[target].profile if target in TARGETS else target
    if not name:
        raise InputError(f"--dry-run: target {target!r} has no limits of size or arithmetic to check")
    profile = load_profile(name)
    if source.name.endswith(".int.h5"):
        raise InputError(f"--dry-run: looks at float networks, {source} is in integers; give the network it is from")
    network, _, _ = open_source(source)
    found = check(network, profile)
    result = {"changes": [item.sentence() for item in found.changes], "seconds": time.perf_counter() - begin}
    lines, refused = list(found.sentences()), ""
    if found.fits and target in TARGETS:
        with TemporaryDirectory(prefix="snnsim-dry-run-") as folder:
            try:
                export_network(network, target, Path(folder) / f"network{TARGETS[target].suffix}")
            except InputError as error:
                refused = str(error)
                lines[0] = f"does not fit {target}\ncannot: {refused}"
    emit(result | {"check": found.to_json(), "refused": refused or None}, json=json, text="\n".join(lines))
    if refused or not found.fits:
        raise typer.Exit(1)
