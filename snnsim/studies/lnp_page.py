"""The page of the study of Lyapunov noise pruning: claims, tables, paired differences, pictures of the pools."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from snnsim.files import write_text
from snnsim.html_page import figure_html, page_html, table_html
from snnsim.studies.lnp import ALIKE, Cell
from snnsim.studies.lnp_pictures import pool_figures, result_figure
from snnsim.studies.statistics import Interval, paired_difference, summary

__all__ = ["Difference", "differences", "head_of", "lnp_page", "lnp_text", "rows_of", "verdict", "write_lnp_page"]

METRICS = {"prediction": ("vpt", "rmse"), "classes": ("accuracy",)}
DIGITS = {"vpt": 3, "rmse": 4, "accuracy": 1}
SHOWN = {"vpt": "valid prediction time, Lyapunov times", "rmse": "error one step ahead", "accuracy": "accuracy, %"}


class Difference(NamedTuple):
    """A paired difference: of what, in which task and metric, and its interval (accuracy in percentage points)."""

    what: str
    task: str
    metric: str
    interval: Interval


def _values(result: dict[str, Any], task: str, cell: Cell, metric: str) -> list[float]:
    """Return a metric of a cell in the order of seeds; accuracy in percent, sparsities as shares."""
    runs = [run for run in result["runs"] if run["task"] == task and Cell(**run["cell"]) == cell]
    runs.sort(key=lambda run: int(run["seed"]))
    if metric in ("synapses", "neurons"):
        return [float(run["sparsity"][metric]) for run in runs]
    factor = 100.0 if metric == "accuracy" else 1.0
    return [factor * float(run[metric]) for run in runs]


def _cells(result: dict[str, Any]) -> list[Cell]:
    found: dict[Cell, None] = {}
    for run in result["runs"]:
        found.setdefault(Cell(**run["cell"]))
    return list(found)


def _tasks(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return name and metric of every comparison."""
    return [(facts["name"], metric) for facts in result["tasks"] for metric in METRICS[facts["kind"]]]


def differences(result: dict[str, Any]) -> list[Difference]:
    """Return what is compared: with the dense pool, with the pruned reference, and kind with kind."""
    cells = _cells(result)
    pairs: list[tuple[str, Cell, Cell]] = []
    for cell in cells:
        dense = Cell(cell.kind, "dense")
        if cell != dense and dense in cells:
            pairs.append((f"{cell.kind}: {cell.way}, against dense", cell, dense))
        reference = cell.reference
        if cell not in (dense, reference) and reference in cells and cell.way != "no recurrence":
            pairs.append((f"{cell.kind}: {reference.way}, against {cell.way}", reference, cell))
    for way in ALIKE:
        mixed, alike = Cell("heterogeneous", way), Cell("homogeneous", way)
        if mixed in cells and alike in cells:
            pairs.append((f"{way}: heterogeneous, against homogeneous", mixed, alike))
    made = []
    for task, metric in _tasks(result):
        for what, new, old in pairs:
            first, second = (_values(result, task, cell, metric) for cell in (new, old))
            made.append(Difference(what, task, metric, paired_difference(first, second)))
    return made


def operations_ratio(result: dict[str, Any], task: str, cell: Cell) -> Interval:
    """Return recurrent synaptic operations divided by those of the dense pool of the same kind and seed."""
    dense = _values(result, task, Cell(cell.kind, "dense"), "operations")
    own = _values(result, task, cell, "operations")
    return summary([a / b if b else 0.0 for a, b in zip(own, dense, strict=True)])


def verdict(result: dict[str, Any]) -> list[str]:
    """Return in sentences whether the pruned pool met its targets, a miss as a miss.

    At least half of the synapses and 30 % of the neurons gone; at most 1 % relative loss of accuracy; valid prediction
    time not below the dense pool's. A target counts as met if the mean does; what the interval allows stands beside it.
    """
    lines = []
    cells = _cells(result)
    found, dense = Cell("heterogeneous", "lnp"), Cell("heterogeneous", "dense")
    if found not in cells or dense not in cells:
        return ["the study holds no heterogeneous pools with and without pruning: no verdict"]
    name = result["tasks"][0]["name"]
    synapses, neurons = (summary(_values(result, name, found, which)) for which in ("synapses", "neurons"))
    enough = synapses.mean >= 0.5 and neurons.mean >= 0.3 - 1e-9
    lines.append(
        f"lnp removes {100 * synapses.mean:.1f} % of the pool's synapses and {100 * neurons.mean:.1f} % of its "
        f"neurons: {'met' if enough else 'missed'} (50 % and 30 %)"
    )
    for facts in result["tasks"]:
        metric = METRICS[facts["kind"]][0]
        new, old = (_values(result, facts["name"], cell, metric) for cell in (found, dense))
        if metric == "accuracy":
            loss = summary([100 * (a - b) / b if b else 0.0 for a, b in zip(new, old, strict=True)])
            floor, target, unit, words = -1.0, "-1 % or more", " %", "relative change of accuracy"
        else:
            loss = paired_difference(new, old)
            floor, target, unit = 0.0, "0 or more", " Lyapunov times"
            words = "change of the valid prediction time"
        met, sure = loss.mean >= floor, "the interval allows both"
        if loss.low >= floor or loss.high < floor:
            sure = f"the whole interval {'does' if met else 'misses it'}"
        lines.append(
            f"{facts['name']}: {words} {_number(loss, 2)}{unit}; target {target}: {'met' if met else 'missed'} by the "
            f"mean, {sure}"
        )
    return lines


def lnp_text(result: dict[str, Any]) -> str:
    """Return in sentences what may be claimed: verdicts, and which paired intervals exclude zero, of how many."""
    lines = verdict(result)
    found = differences(result)
    good = {"vpt": 1, "accuracy": 1, "rmse": -1}
    for kind, words in (
        (", against dense", "pruned against dense"),
        (": lnp, against ", "lnp against other ways, heterogeneous"),
        (": heterogeneous, against homogeneous", "heterogeneous against homogeneous"),
    ):
        part = [item for item in found if kind in item.what]
        if kind != ", against dense":
            part = [item for item in part if not item.what.endswith(", against dense")]
        better = [item for item in part if item.interval.excludes_zero and item.interval.mean * good[item.metric] > 0]
        worse = [item for item in part if item.interval.excludes_zero and item.interval.mean * good[item.metric] < 0]
        lines.append(
            f"{words}: {len(better)} of {len(part)} paired differences are better with their whole 95 % interval, "
            f"{len(worse)} worse; about {0.05 * len(part):.1f} would exclude zero by chance"
        )
    return "\n".join(lines)


def _number(interval: Interval, digits: int) -> str:
    if interval.n < 2:
        return f"{interval.mean:.{digits}f}"
    return f"{interval.mean:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def rows_of(result: dict[str, Any], task: str, kind: str) -> list[tuple[str, ...]]:
    """Return rows of text: pool, each metric with interval, removed synapses and neurons, operations against dense."""
    rows = []
    for cell in _cells(result):
        metrics = [_number(summary(_values(result, task, cell, metric)), DIGITS[metric]) for metric in METRICS[kind]]
        shares = [f"{100 * summary(_values(result, task, cell, which)).mean:.1f}" for which in ("synapses", "neurons")]
        ratio = operations_ratio(result, task, cell)
        rows.append((f"{cell.kind}, {cell.way}", *metrics, *shares, f"{ratio.mean:.2f}"))
    return rows


def head_of(kind: str) -> tuple[str, ...]:
    """Return the heads of :func:`rows_of`."""
    gone = ("synapses removed, %", "neurons removed, %", "operations / dense")
    return ("pool", *(SHOWN[metric] for metric in METRICS[kind]), *gone)


def lnp_page(result: dict[str, Any], pools: str | Path | None = None) -> str:
    """Return the page as HTML.

    Args:
        result: What ``study.json`` holds.
        pools: Folder of the study's pools, for the pictures of them; None: without.
    """
    claims = "".join(f"<p>{escape(line)}.</p>" for line in lnp_text(result).split("\n"))
    sections = [("claims", "What may be claimed", claims)]
    for facts in result["tasks"]:
        name, kind = facts["name"], facts["kind"]
        metric = METRICS[kind][0]
        values = {cell: _values(result, name, cell, metric) for cell in _cells(result)}
        note = "Mean over seeds (large), its 95 % interval (line) and every seed (small)."
        parts = [figure_html(result_figure(values, SHOWN[metric]), f"results-{_word(name)}", note)]
        caption = f"{result['seeds']} seeds; in brackets the 95 % interval of the mean"
        parts.append(table_html(caption, head_of(kind), rows_of(result, name, kind)))
        sections.append((_word(name), name, "".join(parts)))
    rows = []
    for item in differences(result):
        digits = 4 if item.metric == "rmse" else 3
        mark = "yes" if item.interval.excludes_zero else ""
        rows.append((f"{item.task}: {item.what}", SHOWN[item.metric], _number(item.interval, digits), mark))
    head = ("difference", "of", "mean (interval)", "excludes zero")
    sections.append(("differences", "Paired differences", table_html("The same seeds on both sides", head, rows)))
    if pools is not None:
        drawn = "".join(figure_html(figure, name, words) for name, figure, words in pool_figures(Path(pools)))
        sections.append(("pools", "The pools before and after", drawn))
    sections.append(("settings", "Settings", _settings(result)))
    return page_html(
        "Lyapunov noise pruning of recurrent pools",
        "One pruned pool for all tasks; equal tuning budgets; baselines with as many synapses and neurons (a pool "
        "drawn anew on average).",
        sections,
        footer="Made by snnsim reproduce lnp. Much of the method is this package's reconstruction.",
    )


def _settings(result: dict[str, Any]) -> str:
    rows: list[Sequence[Any]] = []
    for facts in result["tasks"]:
        for cell in _cells(result):
            found = result["chosen"][f"{facts['name']} {cell.name}"]
            runs = _values(result, facts["name"], cell, "rate")
            mean = sum(runs) / len(runs)
            rows.append(
                (f"{facts['name']}: {cell.kind}, {cell.way}", *(f"{v:g}" for v in found.values()), f"{mean:.0f}")
            )
    head = ("pool", "input scale", "recurrent gain", "ridge", "rate, spikes/s a neuron")
    return table_html(f"Chosen on other pools and data, {result['settings']} settings each", head, rows)


def _word(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower() or "data"


def write_lnp_page(path: str | Path, result: dict[str, Any], pools: str | Path | None = None) -> Path:
    """Write :func:`lnp_page` to a file, atomically, and return its path."""
    path = Path(path)
    write_text(path, lnp_page(result, pools))
    return path
