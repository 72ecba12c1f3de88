"""What a comparison of simulations says: rates first, then ratios where both sides did the same, and the floor."""

from __future__ import annotations

import statistics
from typing import Any

from snnsim.bench.pairs import Comparison, Side
from snnsim.bench.sim_floor import Limits
from snnsim.bench.sim_tasks import SimTask

__all__ = [
    "RATE_TOLERANCE",
    "equal_turns",
    "events_per_second",
    "format_simulation",
    "mean_rate",
    "refusal",
    "simulation_to_json",
]

RATE_TOLERANCE = 0.05
"""Two sides whose mean rates differ by more have not done the same work."""


def mean_rate(task: SimTask, side: Side) -> float:
    """Return the spikes a second and neuron in all turns of a side; in its first stretch if it had no turn."""
    turns = side.turns or ({**side.first, "stretches": 1},)
    spikes = sum(sum(turn["spikes"]) for turn in turns)
    stretches = sum(turn["stretches"] for turn in turns)
    return float(spikes / (stretches * task.n_steps * task.dt * task.n_neurons))


def events_per_second(side: Side) -> float:
    """Return the synaptic events a second, the median over the turns."""
    rates = [turn["events"] / turn["stretches"] / turn["seconds"] for turn in side.turns]
    return statistics.median(rates) if rates else 0.0


def refusal(comparison: Comparison[SimTask], side: Side) -> str:
    """Return why a side's time must not be compared with ours, one sentence, or an empty string."""
    task, ours = comparison.task, comparison.sides[0]
    for each in (ours, side):
        counts = tuple(each.first["spikes"])
        if task.expected and counts != task.expected:
            return (
                f"{each.name} has {_counts(counts)} spikes in the first stretch, published are {_counts(task.expected)}"
            )
    if task.exact:
        a, b = tuple(ours.first["spikes"]), tuple(side.first["spikes"])
        if a != b:
            return f"the first stretch has {_counts(b)} spikes there and {_counts(a)} here, so the work is not the same"
        return ""
    here, there = mean_rate(task, ours), mean_rate(task, side)
    if abs(there - here) > RATE_TOLERANCE * here:
        return f"the mean rate is {there:.2f} /s there and {here:.2f} /s here, more than {RATE_TOLERANCE:.0%} apart"
    return ""


def equal_turns(comparison: Comparison[SimTask], side: Side) -> int:
    """Return in how many turns a side had our spike counts, per stretch."""
    return sum(
        [count * b["stretches"] for count in a["spikes"]] == [count * a["stretches"] for count in b["spikes"]]
        for a, b in zip(comparison.sides[0].turns, side.turns, strict=True)
    )


def _counts(numbers: tuple[int, ...]) -> str:
    return " + ".join(map(str, numbers))


def simulation_to_json(comparison: Comparison[SimTask], limits: Limits | None) -> dict[str, Any]:
    """Return JSON values; a side whose ratio is refused has none, but the sentence ``refused``."""
    task = comparison.task
    made = comparison.to_json()
    for row, side in zip(made["sides"], comparison.sides, strict=True):
        if side.missing:
            continue
        refused = refusal(comparison, side)
        row |= {
            "rate": mean_rate(task, side),
            "first_spikes": list(side.first["spikes"]),
            "first_events": side.first["events"],
            "events_per_second": events_per_second(side),
            "refused": refused,
        }
        if task.exact:
            row["equal_turns"] = equal_turns(comparison, side)
        if refused:
            for name in ("ratio", "ratio_range"):
                row.pop(name, None)
    made |= {"exact": task.exact, "neurons": task.n_neurons, "steps": task.n_steps, "dt": task.dt}
    if limits is not None:
        made["limits"] = {
            "events_per_second": limits.events,
            "updates_per_second": limits.updates,
            "event_bytes": limits.event_bytes,
            "update_bytes": limits.update_bytes,
            "floor_seconds": _floor(task, comparison.sides[0], limits),
        }
    return made


def _floor(task: SimTask, side: Side, limits: Limits) -> float:
    events = sum(turn["events"] for turn in side.turns)
    stretches = sum(turn["stretches"] for turn in side.turns)
    return limits.seconds(events / stretches if stretches else side.first["events"], task.n_steps * task.n_neurons)


def format_simulation(comparison: Comparison[SimTask], limits: Limits | None = None) -> str:
    """Return a comparison as a small table of text.

    Args:
        comparison: What was measured.
        limits: What bare loops reach, to show how far ours is from them.
    """
    task, ours = comparison.task, comparison.sides[0]
    sizes = "-".join(map(str, task.sizes)) if task.net == "stream" else f"{task.sizes[0]} x {task.sizes[1]}"
    span = task.n_steps * task.dt * 1e3
    same = "spike counts must be equal" if task.exact else f"rates must agree within {RATE_TOLERANCE:.0%}"
    lines = [f"{task.name}: {task.summary}; {sizes}, stretches of {span:g} ms; {same}"]
    if limits is not None:
        floor = _floor(task, ours, limits)
        lines.append(
            f"  {'floor':<13} {floor * 1e3:9.2f} ms    bare loops: {limits.events / 1e6:.0f} M synaptic events/s of "
            f"{limits.event_bytes} bytes, {1e9 / limits.updates:.2f} ns a neuron-step of {limits.update_bytes} bytes"
        )
    for side in comparison.sides:
        if side.missing:
            lines.append(f"  {side.name:<13} not measured: {side.missing}")
            continue
        text = f"  {side.name:<13} {side.median * 1e3:9.2f} ms  {mean_rate(task, side):7.2f} /s"
        text += f"  {events_per_second(side) / 1e6:7.1f} M events/s  {side.memory_rise / 2**20:6.0f} MiB"
        refused = refusal(comparison, side)
        if side is ours:
            if limits is not None:
                text += f"   {side.median / floor:.2f} x the floor"
            if refused:
                text += f"   {refused}"
        elif refused:
            text += f"   no ratio: {refused}"
        else:
            ratios = comparison.ratios(side)
            text += f"   {statistics.median(ratios):5.2f} x ours ({min(ratios):.2f}-{max(ratios):.2f}),"
            text += f" ours takes {ours.memory_rise / max(1, side.memory_rise):.2f} of its memory"
            if task.exact:
                text += f"; equal counts in {equal_turns(comparison, side)} of {len(side.turns)} turns"
        lines.append(text)
    return "\n".join(lines)
