"""The page of the study: what every combination reached, what learning the neurons' own parameters adds, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnsim.files import write_text
from snnsim.html_page import figure_html, page_html, table_html
from snnsim.plots.page import COLOURS, new_figure, page_style
from snnsim.studies.meta_neuron import FEATURES, Cell
from snnsim.studies.statistics import Interval, paired_difference, summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["accuracy_rows", "comparisons", "study_page", "study_text", "write_study_page"]

SHOWN = {"lif": "LIF", "meta": "MetaNeuron", "levy-baxter": "Levy-Baxter"}
TINTS = dict(zip(FEATURES, (COLOURS["blue"], COLOURS["vermillion"], COLOURS["green"]), strict=True))


def _values(result: dict[str, Any], data: str, cell: Cell, decision: str, features: str) -> list[float]:
    """Return the accuracies of a combination in the order of seeds."""
    name = cell.name
    runs = [run for run in result["runs"] if run["data"] == data and Cell(**run["cell"]).name == name]
    runs.sort(key=lambda run: int(run["seed"]))
    return [float(run["accuracy"][decision][features]) for run in runs]


def _cells(result: dict[str, Any]) -> list[Cell]:
    found: dict[str, Cell] = {}
    for run in result["runs"]:
        cell = Cell(**run["cell"])
        found.setdefault(cell.name, cell)
    return list(found.values())


def comparisons(result: dict[str, Any], decision: str = "logistic") -> list[tuple[str, str, str, Interval]]:
    """Return paired differences: data, what is compared, features, interval of the difference in accuracy."""
    found = []
    known = {cell.name: cell for cell in _cells(result)}
    for facts in result["data"]:
        data = facts["name"]
        for cell in known.values():
            label = f"{SHOWN[cell.neuron]}, {cell.rule}"
            fixed = known.get(Cell(cell.neuron, cell.rule, False).name)
            if cell.intrinsic and fixed is not None:
                for name in FEATURES:
                    new, old = (_values(result, data, item, decision, name) for item in (cell, fixed))
                    found.append(
                        (data, f"{label}: own parameters learned, against fixed", name, paired_difference(new, old))
                    )
            if not cell.intrinsic:
                rate = _values(result, data, cell, decision, "rate")
                for name in ("lzc", "both"):
                    new = _values(result, data, cell, decision, name)
                    found.append((data, f"{label}: features {name}, against rate", name, paired_difference(new, rate)))
            first = known.get(Cell(cell.neuron, "none", False).name)
            if first is not None and cell.rule != "none" and not cell.intrinsic:
                for name in FEATURES:
                    new, old = (_values(result, data, item, decision, name) for item in (cell, first))
                    found.append(
                        (data, f"{label}: weights learned, against first weights", name, paired_difference(new, old))
                    )
    return found


def _percent(interval: Interval) -> str:
    if interval.n < 2:
        return f"{100 * interval.mean:.1f}"
    return f"{100 * interval.mean:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def accuracy_rows(result: dict[str, Any], data: str, decision: str) -> list[tuple[str, ...]]:
    """Return rows of text: layer, and its accuracy in percent with interval for each kind of features."""
    own = result["inputs"][data][decision]
    rows = [("input channels themselves", *(f"{100 * own[name]:.1f}" for name in FEATURES))]
    for cell in _cells(result):
        learned = "first weights" if cell.rule == "none" else cell.rule
        label = f"{SHOWN[cell.neuron]}, {learned}{', own parameters too' if cell.intrinsic else ''}"
        rows.append((label, *(_percent(summary(_values(result, data, cell, decision, name))) for name in FEATURES)))
    return rows


def _picture(result: dict[str, Any], data: str) -> Figure:
    every = _cells(result)
    with page_style():
        return _drawn(result, data, every)


def _drawn(result: dict[str, Any], data: str, every: list[Cell]) -> Figure:
    figure = new_figure(width=9.8, height=0.6 + 0.27 * len(every))
    axes = figure.subplots()
    for place, cell in enumerate(every):
        for shift, name in zip((-0.22, 0.0, 0.22), FEATURES, strict=True):
            values = _values(result, data, cell, "logistic", name)
            found = summary(values)
            y = place + shift
            axes.plot([100 * value for value in values], [y] * len(values), ".", color=TINTS[name], alpha=0.35, ms=4)
            axes.plot([100 * found.low, 100 * found.high], [y, y], "-", color=TINTS[name], lw=1.5)
            axes.plot(100 * found.mean, y, "o", color=TINTS[name], ms=4, label=name if place == 0 else None)
    axes.set_yticks(range(len(every)))
    axes.set_yticklabels([f"{SHOWN[cell.neuron]} {cell.rule}{' + own' if cell.intrinsic else ''}" for cell in every])
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy, percent")
    axes.legend(title="features", loc="best", frameon=False)
    return figure


def study_text(result: dict[str, Any]) -> str:
    """Return in sentences what may be claimed: which paired intervals exclude zero, of how many."""
    found = comparisons(result)
    lines = []
    for kind in ("own parameters learned, against fixed", "features", "weights learned, against first weights"):
        part = [item for item in found if kind in item[1]]
        up = [item for item in part if item[3].low > 0]
        down = [item for item in part if item[3].high < 0]
        lines.append(
            f"{kind if kind != 'features' else 'complexity as a feature, against rate'}: {len(up)} of {len(part)} "
            f"differences lie above zero with their 95 % interval, {len(down)} below; about "
            f"{0.05 * len(part):.1f} would by chance"
        )
    return "\n".join(lines)


def study_page(result: dict[str, Any]) -> str:
    """Return the page as HTML."""
    sections = [
        ("claims", "What may be claimed", "".join(f"<p>{escape(line)}.</p>" for line in study_text(result).split("\n")))
    ]
    for facts in result["data"]:
        data = facts["name"]
        text = (
            f"{facts['classes']} classes; {facts['train']} training samples ({facts['held_out']} of them held out "
            f"while settings were chosen), {facts['test']} test samples; {facts['channels']} channels, "
            f"{facts['neurons']} neurons, steps of {1000 * facts['dt']:g} ms. {result['seeds']} seeds; in brackets the "
            "95 % interval of the mean."
        )
        head = ("layer", *(f"{name}, %" for name in FEATURES))
        parts = [f"<p>{escape(text)}</p>"]
        note = (
            "Mean over seeds (large), its interval (line) and every seed (small); logistic regression on the features."
        )
        parts.append(figure_html(_picture(result, data), f"accuracy-{_word(data)}", note))
        for decision in ("logistic", "class-mean"):
            rows = accuracy_rows(result, data, decision)
            parts.append(table_html(f"Test accuracy, {decision} decision", head, rows))
        sections.append((_word(data), data, "".join(parts)))
    rows = [
        (f"{data}: {what}", name, _percent(interval), "yes" if interval.excludes_zero else "")
        for data, what, name, interval in comparisons(result)
    ]
    head = ("difference in accuracy, percentage points", "features", "mean (interval)", "excludes zero")
    sections.append(
        ("differences", "Paired differences", table_html("The same seeds on both sides, logistic", head, rows))
    )
    sections.append(("costs", "Settings and costs", _costs(result)))
    return page_html(
        "Learned neuron parameters, and complexity as a code",
        "One layer of neurons, three learning rules, three ways of reading its spikes; equal tuning budgets.",
        sections,
        footer="Made by snnsim reproduce meta-neuron. The definitions of the neurons, of the own-parameter rules and "
        "of the pipeline are this package's reconstruction.",
    )


def _costs(result: dict[str, Any]) -> str:
    rows: list[Sequence[Any]] = []
    for facts in result["data"]:
        for cell in _cells(result):
            runs = [
                run for run in result["runs"] if run["data"] == facts["name"] and Cell(**run["cell"]).name == cell.name
            ]
            setting = result["chosen"][f"{facts['name']} {cell.name}"]
            means = [
                sum(float(run[name]) for run in runs) / len(runs) for name in ("seconds", "lzc_milliseconds", "rate")
            ]
            rows.append(
                (
                    f"{facts['name']}: {cell.name}",
                    ", ".join(f"{name} {value:g}" for name, value in setting.items()),
                    *(f"{mean:.3g}" for mean in means),
                )
            )
    head = ("combination", "chosen setting", "training, s", "LZ stage, ms a sample", "rate, spikes/s a neuron")
    return table_html("Chosen on held-out training samples, four settings each; means over seeds", head, rows)


def _word(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower() or "data"


def write_study_page(path: str | Path, result: dict[str, Any]) -> Path:
    """Write :func:`study_page` to a file, atomically, and return its path."""
    path = Path(path)
    write_text(path, study_page(result))
    return path
