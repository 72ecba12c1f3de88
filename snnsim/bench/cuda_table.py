"""What `snnsim bench cuda` prints and writes: a table a task, with the device, versions and sizes that it holds for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from snnsim.bench.cuda_floor import neuron_bytes
from snnsim.bench.cuda_run import CudaResult, CudaSide

__all__ = ["SIMULATED", "describe_device", "format_cuda", "report_cuda"]

SIMULATED = "Measured in Numba's simulator on a CPU: this shows that everything runs, and no speed at all."


def describe_device(facts: dict[str, Any]) -> str:
    """Return the device, what it can do at best, and versions, in one line or two."""
    if facts["simulated"]:
        return SIMULATED
    copy, product, narrow = (facts[name] for name in ("copy_bytes", "operations", "bf16_operations"))
    words = f"{facts['device']}: copies {copy / 1e9:.0f} GB/s (bytes read and written), float32 products "
    words += f"{product / 1e12:.1f} TFLOP/s without tf32, bf16 {narrow / 1e12:.0f}"
    words += f"; {facts['memory'] / 2**30:.0f} GiB, compute capability {facts['capability']}"
    return f"{words}, CUDA {facts['torch_cuda']} of torch"


def _title(result: CudaResult) -> str:
    task = result.task
    title = f"{task.name}: {task.summary}"
    if task.sizes:
        title += f"; {'-'.join(map(str, task.sizes))}, batch {task.batch}, T = {task.n_steps}"
    if task.kind == "sim":
        facts = result.facts
        title += f"; {facts.get('neurons', 0)} neurons, {facts.get('synapses', 0)} synapses (scale {task.scale:g})"
        title += f", stretches of {1e3 * facts.get('stretch_seconds', 0):g} ms, float32"
    return title


def _rows(result: CudaResult) -> list[list[str]]:
    """Return the cells of a table, its head first."""
    ours = result.sides[0]
    parts = list(ours.seconds)
    head = ["side"]
    for part in parts:
        head += [f"{part} simulated ms"] if result.simulated else [f"{part} ms", "x ours (range)"]
        if part in result.floor:
            head.append("x floor")
    if result.task.kind == "sim" and not result.simulated:
        head.append("s a biological s")
    if result.task.kind == "kernel" and result.floor:
        head.append("of the copy's bandwidth")
    rows = [[*head, "peak MiB", "device MiB"]]
    for side in result.sides:
        if not side.missing:
            rows.append([side.name, *_times(result, side, ours), _mib(side.peak), _mib(side.rise)])
    return rows


def _times(result: CudaResult, side: CudaSide, ours: CudaSide) -> list[str]:
    cells = []
    for part in ours.seconds:
        median = side.median(part)
        cells.append(f"{median * 1e3:.3f}")
        ratios = side.ratios(ours, part)
        ratio = "" if side is ours else f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        cells += [] if result.simulated else [ratio]
        if part in result.floor:
            cells.append(f"{median / result.floor[part]:.2f}" if side is ours else "")
    if result.task.kind == "sim" and not result.simulated:
        cells.append(f"{side.median('stretch') / result.facts['stretch_seconds']:.3f}")
    if result.task.kind == "kernel" and result.floor:
        # the floor is bytes over the copy's bandwidth, so its share is the bandwidth that is reached
        shares = [result.floor[part] / side.median(part) for part in ours.seconds]
        cells.append(", ".join(f"{share:.0%}" for share in shares))
    return cells


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f}" if size else "-"


def _notes(result: CudaResult) -> list[str]:
    """Return what stands below a table."""
    notes = [f"{side.name} not measured: {side.missing}" for side in result.sides if side.missing]
    if result.floor:
        notes.append("floor: " + ", ".join(f"{part} {least * 1e3:.3f} ms" for part, least in result.floor.items()))
    if result.task.kind == "kernel":
        size = float(result.task.n_steps * result.task.batch * result.task.sizes[0])
        moved = [f"{neuron_bytes(size, backward) / 2**20:.0f} MiB" for backward in (False, True)]
        notes.append(f"least traffic: forward {moved[0]}, backward {moved[1]}")
    for name, counts in result.facts.get("spikes", {}).items():
        notes.append(
            f'engine "{name}": spikes in its first stretch {counts[0] if counts else 0}, notes '
            f"{result.facts['notes'].get(name, {})}"
        )
    return notes


def _precision(facts: dict[str, Any]) -> list[list[str]]:
    """Return the cells of the table of distances from float64."""
    rows = [["relative l2 from float64", "output", "input", "weight", "position", "differing spikes"]]
    for place, row in enumerate(facts.get("layers", [])):
        cells = [f"{row[name]:.1e}" for name in ("output", "input", "weight", "position")]
        rows.append([f"delay layer {place + 1} alone", *cells, ""])
    for name, row in facts.items():
        if name != "layers":
            spikes = f"{row['differing']:.0f} of {row['spikes']:.0f}"
            rows.append([f"network, {name}", f"{row['scores']:.1e}", "", f"{row['gradients']:.1e}", "", spikes])
    return rows


def _table(result: CudaResult) -> list[list[str]]:
    if result.task.kind == "precision":
        return _precision(result.facts)
    return [] if result.task.kind == "ceilings" else _rows(result)


def format_cuda(result: CudaResult) -> str:
    """Return the result of a task as text for people."""
    if result.missing:
        return f"{result.task.name}: not measured: {result.missing}"
    if result.task.kind == "ceilings":
        return describe_device(result.facts)
    rows = _table(result)
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_title(result)]
    for row in rows:
        cells = [f"{cell:<{wide[0]}}" if place == 0 else f"{cell:>{wide[place]}}" for place, cell in enumerate(row)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join([*lines, *(f"  {line}" for line in _notes(result))])


def report_cuda(results: Sequence[CudaResult], rounds: int) -> str:
    """Return the results so far as a page in Markdown."""
    lines = ["# Measured on a CUDA device", ""]
    for result in results:
        if result.task.kind == "ceilings" and not result.missing:
            lines += [describe_device(result.facts), ""]
            versions = result.sides[0].versions
            lines += [", ".join(f"{name} {version}" for name, version in versions.items()) + ".", ""]
            lines += [
                f"All sides in turn in one run, medians of {rounds} rounds, ranges over rounds; time between CUDA "
                "events (of simulations and of JAX by the wall clock). Peak: tensors, as each library counts. Device: "
                "how far the memory in use rose, as NVML tells.",
                "",
            ]
            continue
        lines += [f"## {_title(result)}" if not result.missing else f"## {result.task.name}", ""]
        if result.missing:
            lines += [f"Not measured: {result.missing}", ""]
            continue
        head, *rows = _table(result)
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines += ["", *(f"- {line}" for line in _notes(result)), ""]
        others = {side.name: side.versions for side in result.sides[1:] if side.versions}
        if others:
            words = "; ".join(
                f"{name}: {', '.join(f'{key} {value}' for key, value in made.items())}" for name, made in others.items()
            )
            lines += [f"Versions: {words}.", ""]
    return "\n".join(lines).rstrip() + "\n"
