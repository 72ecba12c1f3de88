"""`snnsim reproduce meta-neuron`: a study of many small runs instead of one recipe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from snnsim.cli.output import columns, emit, note

__all__ = ["STUDIES", "run_study"]

STUDIES = ("meta-neuron",)
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
