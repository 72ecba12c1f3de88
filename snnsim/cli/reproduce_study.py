"""`snnsim reproduce meta-neuron`, `lnp` and `hardware`: studies of many runs instead of one recipe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from snnsim.cli.output import columns, emit, note

__all__ = ["STUDIES", "run_hardware", "run_lnp", "run_study"]

STUDIES = ("meta-neuron", "lnp", "hardware")
"""Names that `snnsim reproduce` takes beside recipes."""


def run_study(data: list[str], seeds: int, out: Path, json: bool, quiet: bool) -> None:
    """Run the study of learned neuron parameters and print its table."""
    from snnsim.datasets import open_dataset
    from snnsim.studies.meta_neuron_page import accuracy_rows, study_text
    from snnsim.studies.meta_neuron_run import SOURCE_SETS, as_material, reproduce_meta_neuron, source_material

    materials = [
        source_material(name.removeprefix("sources:"))
        if name.startswith("sources:")
        else as_material(open_dataset(name))
        for name in (data or [*(f"sources:{kind}" for kind in SOURCE_SETS), "spoken-digits"])
    ]
    start = time.perf_counter()
    last = 0.0

    def told(done: int, total: int, run: dict[str, Any]) -> None:
        nonlocal last
        now = time.perf_counter()
        if not quiet and (now - last > 5 or done == total):
            last = now
            note(f"{done} of {total} runs, {now - start:.0f} s")

    result = reproduce_meta_neuron(materials, out, seeds=seeds, told=told)
    lines: list[str] = []
    for facts in result["data"]:
        head = (f"{facts['name']}: test accuracy, %", "rate", "lzc", "both")
        lines += [*columns([head, *accuracy_rows(result, facts["name"], "logistic")]), ""]
    lines += [study_text(result), f"{out / 'report.html'}: open it in a browser"]
    facts = {"seconds": time.perf_counter() - start, "files": [out / "report.html", out / "study.json"], **result}
    emit(facts, json, "\n".join(lines))


def run_lnp(data: list[str], seeds: int, out: Path, json: bool, quiet: bool, quick: bool) -> None:
    """Run the study of Lyapunov noise pruning and print its tables."""
    from snnsim.studies.lnp import QUICK, Sizes
    from snnsim.studies.lnp_page import head_of, lnp_text, rows_of
    from snnsim.studies.lnp_run import reproduce_lnp
    from snnsim.studies.lnp_tasks import DEFAULT_TASKS, make_task

    sizes = QUICK if quick else Sizes()
    tasks = [make_task(name, sizes) for name in (data or DEFAULT_TASKS)]
    start = time.perf_counter()
    last = 0.0

    def told(done: int, total: int, what: str) -> None:
        nonlocal last
        now = time.perf_counter()
        if not quiet and (now - last > 5 or done == total):
            last = now
            note(f"{done} of {total} jobs, {now - start:.0f} s: {what}")

    result = reproduce_lnp(tasks, out, seeds=seeds, told=told)
    lines: list[str] = []
    for facts in result["tasks"]:
        first, *rest = head_of(facts["kind"])
        rows = rows_of(result, facts["name"], facts["kind"])
        lines += [*columns([(f"{facts['name']}: {first}", *rest), *rows]), ""]
    if quick:
        lines.append("quick sizes: the pools are too small and the samples too few for any claim")
    lines += [lnp_text(result), f"{out / 'report.html'}: open it in a browser"]
    facts = {"seconds": time.perf_counter() - start, "files": [out / "report.html", out / "study.json"], **result}
    emit(facts, json, "\n".join(lines))


def run_hardware(
    data: str, seeds: int, out: Path, run: Path | None, pythons: dict[str, str], json: bool, quiet: bool, quick: bool
) -> None:
    """Run the study of hardware targets and print its tables."""
    from snnsim.datasets import open_dataset
    from snnsim.studies.hardware import QUICK, Sizes
    from snnsim.studies.hardware_page import ACCURACY_HEAD, TARGET_HEAD, accuracy_rows, hardware_text, target_rows
    from snnsim.studies.hardware_run import reproduce_hardware
    from snnsim.training import load_run

    start = time.perf_counter()

    def told(what: str) -> None:
        if not quiet:
            note(f"{time.perf_counter() - start:.0f} s: {what}")

    study = reproduce_hardware(
        open_dataset(data),
        out,
        seeds=seeds,
        run=None if run is None else load_run(run),
        sizes=QUICK if quick else Sizes(),
        pythons=pythons,
        told=told,
    )
    lines = [*columns([ACCURACY_HEAD, *accuracy_rows(study)]), "", *columns([TARGET_HEAD, *target_rows(study)]), ""]
    if quick:
        lines.append("quick sizes: nothing may be claimed from these figures")
    lines += [*hardware_text(study), f"{out / 'report.html'}: open it in a browser"]
    facts = {"seconds": time.perf_counter() - start, "files": [out / "report.html", out / "study.json"], **study}
    emit(facts, json, "\n".join(lines))
