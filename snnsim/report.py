"""`report.html`: one self-contained page about a trained, simulated and exported network.

The page holds everything inside itself (inline SVG, no script, no link to another place), reads in light and
in dark, and can be sent by mail or kept beside the run. What is not known is said, not left blank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from snnsim import plots
from snnsim.engines import Result, simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.files import write_text
from snnsim.network import Network

__all__ = ["Story", "build_page", "write_report"]

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1d2125; --muted: #6b737b; --line: #d9dee3;
  --card: #f5f7f9; --good: #0a7d4f; --bad: #b3401a; --link: #0a5ea8; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --ink: #e4e8ec; --muted: #97a1ab;
  --line: #323a42; --card: #1c2228; --good: #4fd19b; --bad: #ff9468; --link: #7dbdf5;
  --plot-blue: #4ea6e0; --plot-vermillion: #f5833c; --plot-green: #37c99a; --plot-purple: #e2a0c6;
  --plot-orange: #f2b93b; --plot-sky: #8fd0f7; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.2rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; }
h2 { font-size: 1.22rem; margin: 2.6rem 0 .4rem; padding-top: .7rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.lead { font-size: 1.05rem; }
.muted, figcaption, caption { color: var(--muted); font-size: .9rem; }
nav a { color: var(--link); margin-right: .9rem; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .7rem;
  margin: 1.2rem 0; padding: 0; list-style: none; }
.tiles li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .65rem .85rem; }
.tiles b { display: block; font-size: 1.4rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tiles span { display: block; color: var(--muted); font-size: .84rem; line-height: 1.35; margin-top: .15rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
figure { margin: 1rem 0 1.4rem; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: .3rem; max-width: 46rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.5rem; }
table { border-collapse: collapse; font-size: .94rem; margin: .8rem 0 1.2rem; max-width: 100%;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .28rem .9rem .28rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; padding-right: 1.2rem; }
thead th { color: var(--muted); font-weight: 600; font-size: .86rem; }
tbody th { font-weight: 500; }
code, pre { font: .86rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .8rem;
  overflow-x: auto; }
details > summary { cursor: pointer; color: var(--link); margin: .5rem 0; }
footer { color: var(--muted); font-size: .85rem; padding: 2.5rem 1.25rem 3rem; }
@media print { nav { display: none; } h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Story:
    """What is known about a network besides its numbers and its data. Everything is optional.

    Attributes:
        title: Heading of the page.
        recipe: The recipe as it ran, plain values.
        manifest: Seed, versions, data digest and what else the run folder records.
        metrics: One mapping an epoch; keys as in ``metrics.jsonl``.
        result: Label (how the epoch was chosen) to ``epoch``, ``test_accuracy`` and ``valid_accuracy``.
        before: The network before training, for the delay pictures.
        moved: Rows of what training moved: layer, quantity, how many, before, after, mean and largest change.
        proof: The export proof as plain values, see :mod:`snnsim.export.proof`.
        changes: What an exporter changed, one sentence each.
        files: Files that belong to the run, name to size in bytes.
        seconds: Wall time by stage.
        split: What the samples of the page are, in a few words.
    """

    title: str = "Spiking network"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    result: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    before: Network | None = None
    moved: Sequence[Sequence[str]] = ()
    proof: Mapping[str, Any] | None = None
    changes: Sequence[str] = ()
    files: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    split: str = "test samples"


def _number(value: Any) -> str:
    """A number as people read it: thousands apart, four significant digits for fractions."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:,.0f}" if abs(float(value)) >= 1e4 else f"{value:.4g}"
    return str(value)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]], numbers: bool = True) -> str:
    """An HTML table whose first column names the row."""
    kind = ' class="number"' if numbers else ""
    titles = "".join(f'<th scope="col"{kind if place else ""}>{escape(text)}</th>' for place, text in enumerate(head))
    body = []
    for row in rows:
        cells = "".join(f"<td{kind}>{escape(_number(value))}</td>" for value in row[1:])
        body.append(f'<tr><th scope="row">{escape(str(row[0]))}</th>{cells}</tr>')
    top = f"<thead><tr>{titles}</tr></thead>" if head else ""
    return f"<table><caption>{escape(caption)}</caption>{top}<tbody>{''.join(body)}</tbody></table>"


def _figure(figure: Any, name: str, description: str) -> str:
    drawing = plots.to_svg(figure, name, description)
    return f"<figure>{drawing}<figcaption>{escape(description)}</figcaption></figure>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Rows ``a.b`` and value of nested mappings; lists as JSON."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            rows.append((f"{prefix}{key}", json.dumps(value, default=str)))
        else:
            rows.append((f"{prefix}{key}", str(value) if not isinstance(value, (int, float)) else value))
    return rows


def _curves(metrics: Sequence[Mapping[str, Any]], ending: str) -> dict[str, list[float]]:
    """Curves named ``train_<ending>``, ``valid_<ending>``, ... in the metrics, by split; NaN where missing."""
    keys = [key for key in (metrics[0] if metrics else {}) if key.endswith(ending)]
    names = {"train": "training", "valid": "validation", "validation": "validation", "test": "test"}
    curves = {}
    for key in keys:
        split = key[: -len(ending)].rstrip("_.")
        values = [row.get(key) for row in metrics]
        if any(isinstance(value, (int, float)) for value in values):
            curves[names.get(split, split or "training")] = [
                float(value) if isinstance(value, (int, float)) else float("nan") for value in values
            ]
    return curves


@dataclass(frozen=True)
class _Run:
    """The network on the events: what the page shows of the simulation."""

    network: Network
    events: Events
    result: Result
    right: int | None
    wrong: int | None

    @property
    def accuracy(self) -> float | None:
        known = self.events.labels >= 0
        if self.result.logits is None or not known.any():
            return None
        return float(np.mean(self.result.predictions[known] == self.events.labels[known]))

    @property
    def seconds_of_signal(self) -> float:
        return float(np.sum(self.result.n_steps)) * self.network.dt


def _simulate(network: Network, events: Events, tail_steps: int) -> _Run:
    result = simulate(network, events, engine="clock", tail_steps=tail_steps)
    right = wrong = None
    if result.logits is not None and len(events):
        logits = np.sort(result.logits, axis=1)
        margin = logits[:, -1] - logits[:, -2] if logits.shape[1] > 1 else logits[:, -1]
        hit = result.predictions == events.labels
        if hit.any():  # neither the easiest nor the hardest: the one in the middle
            order = np.flatnonzero(hit)[np.argsort(margin[hit], kind="stable")]
            right = int(order[order.size // 2])
        missed = np.flatnonzero(~hit & (events.labels >= 0))
        if missed.size:  # the one the network was most sure of
            wrong = int(missed[np.argmax(margin[missed])])
    return _Run(network, events, result, right, wrong)


def _tiles(run: _Run, story: Story) -> str:
    n = max(len(run.events), 1)
    tiles: list[tuple[str, str, str]] = []
    if run.accuracy is not None:
        tiles.append((f"{run.accuracy:.1%}", f"accuracy on {len(run.events):,} {story.split}, clock engine", ""))
    synapses = sum(item.n_synapses for item in run.network.projections)
    tiles.append((f"{synapses:,}", "synapses", ""))
    spikes = sum(item.n_events for item in run.result.spikes.values())
    tiles.append((f"{spikes / n:,.0f}", "spikes a sample, all layers", ""))
    tiles.append((f"{run.result.operations.synaptic_operations / n:,.0f}", "synaptic operations a sample", ""))
    if story.proof:
        mismatches = story.proof.get("mismatches")
        compared = story.proof.get("compared")
        text = f"differing spikes of {_number(compared)} compared, exported file"
        tiles.append((_number(mismatches), text, "bad" if mismatches else "good"))
    items = "".join(
        f'<li><b class="{kind}">{escape(big)}</b><span>{escape(small)}</span></li>' for big, small, kind in tiles
    )
    return f'<ul class="tiles">{items}</ul>'


def _learning(run: _Run, story: Story) -> str:
    loss, accuracy = _curves(story.metrics, "loss"), _curves(story.metrics, "accuracy")
    if not loss and not accuracy:
        return "<p>No learning curves: this page was made from a network without a training run.</p>"
    chance = 1.0 / run.result.logits.shape[1] if run.result.logits is not None else None
    text = "Loss and accuracy after each epoch. Epochs are never chosen on the test set."
    parts = [_figure(plots.learning_curves(loss, accuracy, chance=chance), "learning", text)]
    if story.result:
        head = ("how the epoch was chosen", "epoch", "test accuracy", "validation accuracy")
        rows = []
        for label, values in story.result.items():
            shares = [values.get(key) for key in ("test_accuracy", "valid_accuracy")]
            rows.append((label, values.get("epoch"), *("" if share is None else f"{share:.2%}" for share in shares)))
        parts.append(_table("Result of the run", head, rows))
    return "".join(parts)


def _one_sample(run: _Run, index: int, name: str, heading: str) -> str:
    readout = run.network.readout
    wanted = [f"{readout.population}.v"] if readout is not None and readout.variable == "v" else []
    one = run.events[index]
    n_steps = int(run.result.n_steps[index])
    result = simulate(run.network, one, engine="clock", n_steps=n_steps, record=wanted)
    layers = {item.name: one for item in run.network.inputs} | dict(result.spikes)
    label, prediction = int(one.labels[0]), int(run.result.predictions[index])
    names = run.events.class_names
    said = names[label] if 0 <= label < len(names) else str(label)
    heard = names[prediction] if 0 <= prediction < len(names) else str(prediction)
    text = f"Sample {int(one.sample_ids[0])}: true class {said}, predicted {heard}."
    drawing = plots.sample(
        layers,
        trace=result.records[wanted[0]][0] if wanted else None,
        dt=run.network.dt,
        class_names=names,
        label=label,
        prediction=prediction,
        trace_label="readout potential",
    )
    return f"<div><h3>{escape(heading)}</h3>{_figure(drawing, name, text)}</div>"


def _samples(run: _Run) -> str:
    if run.result.logits is None:
        return "<p>This network has no readout, so no sample is right or wrong.</p>"
    left = (
        _one_sample(run, run.right, "right", "A sample it gets right")
        if run.right is not None
        else "<p>No sample is classified correctly.</p>"
    )
    right = (
        _one_sample(run, run.wrong, "wrong", "The mistake it is most sure of")
        if run.wrong is not None
        else "<p>There is no mistake to show: every sample is right.</p>"
    )
    return f'<div class="pair">{left}{right}</div>'


def _membranes(run: _Run) -> str:
    spiking = [item for item in run.network.order() if item.neuron.spiking]
    if not spiking or not len(run.events):
        return ""
    population = spiking[0]
    index = run.right if run.right is not None else 0
    one, key = run.events[index], f"{population.name}.v"
    result = simulate(run.network, one, engine="clock", n_steps=int(run.result.n_steps[index]), record=[key])
    threshold = population.neuron.step(population.size, run.network.dt).v_threshold
    text = (
        f"The five most active neurons of {population.name} in sample {int(one.sample_ids[0])}: potential after "
        "each step, threshold dashed."
    )
    drawing = plots.membrane_traces(
        result.records[key][0],
        run.network.dt,
        spikes=result.spikes[population.name],
        threshold=threshold,
        name=population.name,
    )
    return _figure(drawing, "membranes", text)


def _confusion(run: _Run) -> str:
    if run.result.logits is None:
        return "<p>This network has no readout.</p>"
    n_classes = run.result.logits.shape[1]
    known = (run.events.labels >= 0) & (run.events.labels < n_classes)
    if not known.any():
        return "<p>The samples have no labels.</p>"
    matrix = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(matrix, (run.events.labels[known], run.result.predictions[known]), 1)
    text = "Rows: what was said. Columns: what the network heard."
    return _figure(plots.confusion(matrix, run.events.class_names), "confusion", text)


def _delays(run: _Run, story: Story) -> str:
    if run.network.max_delay_steps() == 0:
        return "<p>This network has no delays.</p>"
    compared = "before (line) and after training (filled)" if story.before is not None else "of the network"
    text = f"Number of synapses with each delay, {compared}. One step is {run.network.dt * 1e3:g} ms."
    parts = [_figure(plots.delay_histogram(run.network, story.before), "delays", text)]
    text = "Left: the delay of every synapse, faint where the weight is small. Right: weights against delays."
    return "".join([*parts, _figure(plots.delay_map(run.network), "map", text)])


def _moved(story: Story) -> str:
    if not story.moved:
        return "<p>What training moved is not known: this page was made from a network without a training run.</p>"
    first, *head = ("layer and quantity", "numbers", "before: mean (sd)", "after: mean (sd)", "mean change", "largest")
    rows = [(f"{layer}: {quantity}", *values) for layer, quantity, *values in story.moved]
    return _table("Everything that learned, before the first update and afterwards", (first, *head), rows)


def _activity(run: _Run) -> str:
    seconds = run.seconds_of_signal
    n = max(len(run.events), 1)
    rates, rows = {}, []
    updates = run.result.operations.neuron_updates
    for population in run.network.order():
        fired = run.result.spikes.get(population.name)
        if fired is None:
            continue
        counts = np.bincount(fired.units, minlength=population.size)
        rates[population.name] = counts / max(seconds, 1e-12)
        silent = int(np.sum(counts == 0))
        rows.append(
            (population.name, population.size, fired.n_events / n, float(rates[population.name].mean()), silent)
        )
    operations = run.result.operations
    figure = _figure(plots.rates(rates), "rates", "Mean rate of every neuron over all samples.") if rates else ""
    layers = _table("Layers", ("layer", "neurons", "spikes a sample", "mean rate (Hz)", "silent neurons"), rows)
    totals = [
        ("synaptic operations, effective", operations.synaptic_operations, operations.synaptic_operations / n),
        ("synaptic operations, dense", operations.dense, operations.dense / n),
        ("neuron updates", updates, updates / n),
    ]
    text = (
        "Effective: one operation for each spike that reaches an existing synapse. Dense: the same network on "
        "hardware that multiplies every weight at every step."
    )
    counted = _table(f"Operations over {len(run.events):,} samples", ("", "total", "a sample"), totals)
    return f"{figure}{layers}{counted}<p class='muted'>{text}</p>"


def _proof(story: Story) -> str:
    parts = []
    if story.proof is None:
        parts.append(
            "<p>No proof belongs to this page. <code>snnsim export RUN --target nir --out FILE --check</code> writes a "
            "file, loads it with another program and compares every spike.</p>"
        )
    else:
        mismatches = story.proof.get("mismatches")
        verdict = "no spike differs" if mismatches == 0 else f"{_number(mismatches)} spikes differ"
        if mismatches == 0 and story.proof.get("holds") is False:
            verdict += ", but the proof does not count (see below)"
        kind = "bad" if mismatches or story.proof.get("holds") is False else "good"
        parts.append(
            f'<p class="lead">The exported file was loaded by an independent program and run on the same input: '
            f'<strong class="{kind}">{verdict}</strong>.</p>'
        )
        layers = []
        for item in story.proof.get("layers", ()):
            error = item.get("trace_error")
            found = item.get("mismatches") if error is None else f"membrane equal within {error:.1e}"
            layers.append((item.get("population"), item.get("compared"), item.get("spikes"), found))
        if layers:
            titles = ("layer", "neuron-steps compared", "spikes", "differences")
            parts.append(_table("Comparison, layer by layer", titles, layers))
        planted = [
            (item.get("what"), item.get("mismatches"), "caught" if item.get("caught") else "NOT caught")
            for item in story.proof.get("mutations", ())
        ]
        if planted:
            columns = ("error planted on purpose", "differences", "")
            parts.append(_table("The same comparison must notice an error", columns, planted))
        listed = {"layers", "mutations", "remarks", "schema", "mismatches", "compared"}
        rows = [(key.replace("_", " "), value) for key, value in _flat(story.proof) if key not in listed]
        parts.append(_table("Circumstances", ("", "value"), rows, numbers=False))
        parts += [f"<p class='muted'>{escape(str(text))}</p>" for text in story.proof.get("remarks", ())]
    if story.changes:
        items = "".join(f"<li>{escape(text)}</li>" for text in story.changes)
        parts.append(f"<h3>What the exporter changed or wants known</h3><ul>{items}</ul>")
    return "".join(parts)


def _manifest(run: _Run, story: Story) -> str:
    parts = []
    rows: list[tuple[str, Any]] = [("network digest", run.network.digest()), ("events digest", run.events.digest())]
    rows += _flat(story.manifest)
    parts.append(_table("Manifest", ("", "value"), rows, numbers=False))
    if story.seconds:
        parts.append(_table("Wall time", ("stage", "seconds"), list(story.seconds.items())))
    if story.files:
        parts.append(_table("Files", ("file", "bytes"), list(story.files.items())))
    for title, values in (("Recipe as it ran", story.recipe), ("What freezing did", run.network.notes)):
        if values:
            text = escape(json.dumps(values, indent=1, sort_keys=True, default=str))
            parts.append(f"<details><summary>{title}</summary><pre>{text}</pre></details>")
    return "".join(parts)


def build_page(network: Network, events: Events, story: Story | None = None, *, tail_steps: int = 0) -> str:
    """Simulate `events` on the clock engine and return the page as HTML.

    Args:
        network: A frozen network with one input.
        events: Samples it has not been trained on, as it takes them (framed, pooled).
        story: What else is known.
        tail_steps: Empty steps after each sample, as in training.

    Raises:
        InputError: There are no samples.
        MissingLibraryError: matplotlib is not installed.
    """
    if not len(events):
        raise InputError("report: there are no samples to show; give a data set with a test split")
    story = story or Story()
    run = _simulate(network, events, tail_steps)
    sections = [
        ("learning", "Learning", _learning(run, story)),
        ("samples", "Two samples, layer by layer", _samples(run) + _membranes(run)),
        ("classes", "Confusion matrix", _confusion(run)),
        ("moved", "What training moved", _moved(story)),
        ("delay", "Delays", _delays(run, story)),
        ("activity", "Spikes and operations", _activity(run)),
        ("proof", "Export proof", _proof(story)),
        ("manifest", "Manifest", _manifest(run, story)),
    ]
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{escape(title)}</h2>{content}</section>'
        for name, title, content in sections
    )
    named = [(item.name, item.size) for item in network.inputs] + [(item.name, item.size) for item in network.order()]
    layers = ", ".join(f"{name} {size}" for name, size in named)
    step, longest = network.dt * 1e3, network.max_delay_steps() * network.dt * 1e3
    lead = f"{layers}; one step is {step:g} ms, the longest delay {longest:g} ms."
    version = story.manifest.get("snnsim") or story.manifest.get("versions", {}).get("snnsim", "")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(story.title)}</title><link rel='icon' href='data:,'><style>{STYLE}</style></head><body>"
        f'<header><h1>{escape(story.title)}</h1><p class="lead">{escape(lead)}</p>'
        f'<nav aria-label="Sections">{links}</nav>{_tiles(run, story)}</header>'
        f"<main>{body}</main><footer>Made by snnsim {escape(str(version))}. Every number on this page comes from "
        "the run folder or from a simulation made while the page was written.</footer></body></html>\n"
    )


def write_report(
    path: str | Path, network: Network, events: Events, story: Story | None = None, *, tail_steps: int = 0
) -> Path:
    """Write :func:`build_page` to a file, atomically, and return its path."""
    path = Path(path)
    write_text(path, build_page(network, events, story, tail_steps=tail_steps))
    return path
