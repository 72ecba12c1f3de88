"""The page and the tables of the study of hardware targets."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snnsim.files import write_text
from snnsim.html_page import figure_html, page_html, table_html
from snnsim.metrics import footprint
from snnsim.network import Network
from snnsim.plots.delays import delay_histogram
from snnsim.plots.page import COLOURS, INK, WIDTH, headroom, new_figure, page_style
from snnsim.quantize import quantize
from snnsim.studies.hardware import LAWS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "ACCURACY_HEAD",
    "TARGET_HEAD",
    "accuracy_rows",
    "hardware_page",
    "hardware_text",
    "target_rows",
    "weight_histogram",
    "write_hardware_page",
]

ACCURACY_HEAD = ("law and seed", "float", "integers before", "integers after fine-tuning", "same class as float, after")
TARGET_HEAD = ("target", "proof", "latency", "memory", "energy a sample", "time")


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def accuracy_rows(study: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return rows of text: law and seed, test accuracies; after several seeds also their means."""
    rows: list[tuple[str, ...]] = []
    for profile in dict.fromkeys(item["profile"] for item in study["accuracy"]):
        every = [item for item in study["accuracy"] if item["profile"] == profile]
        held = [item for item in every if "refused" not in item]
        for item in every:
            label = f"{profile}, seed {item['seed']}"
            if "refused" in item:
                rows.append((label, "refused", item["refused"], "", ""))
                continue
            rows.append((label, *(_percent(item[key]) for key in ("float", "before", "after", "same_after"))))
        if len(held) > 1:
            means = (float(np.mean([item[key] for item in held])) for key in ("float", "before", "after", "same_after"))
            rows.append((f"{profile}, mean", *(_percent(value) for value in means)))
    return rows


def _proof(item: Mapping[str, Any]) -> str:
    if "refused" in item:
        return f"cannot hold it: {item['refused']}"
    if item.get("missing"):
        return f"not proven: {item['missing']}"
    text = f"{item['mismatches']:,} of {item['compared']:,} neuron-steps differ"
    text += f", {item['caught']} of {item['planted']} planted errors caught"
    if item["proven"]:
        return f"holds: {text}"
    equal = item["mismatches"] == 0 and item["caught"] == item["planted"]
    return f"{'equal, but too little compared to count' if equal else 'does NOT hold'}: {text}"


def _memory(item: Mapping[str, Any]) -> str:
    if item.get("table_bytes"):
        return f"{item['table_bytes']:,} bytes of tables, {item['state_bytes']:,} of state"
    text = f"{item['memory_bytes']:,} bytes of weights and delays"
    return f"{text}, {item['cores']} cores" if item.get("cores") else text


def target_rows(study: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return rows of text, one a target, as :data:`TARGET_HEAD`."""
    rows: list[tuple[str, ...]] = []
    for item in study["targets"]:
        if "refused" in item:
            rows.append((item["target"], _proof(item), "", "", "", f"{item['seconds']:.0f} s"))
            continue
        steps = int(item["latency"])
        rows.append(
            (
                item["target"],
                _proof(item),
                f"{steps} step{'' if steps == 1 else 's'}",
                _memory(item),
                f"{item['energy'] * 1e9:,.4g} nJ ({item['energy_table']})",
                f"{item['seconds']:.0f} s",
            )
        )
    return rows


def hardware_text(study: Mapping[str, Any]) -> list[str]:
    """Return in sentences what the study found."""
    lines = []
    for profile in dict.fromkeys(item["profile"] for item in study["accuracy"]):
        held = [item for item in study["accuracy"] if item["profile"] == profile and "refused" not in item]
        if not held:
            lines.append(f"{profile} cannot hold the network")
            continue
        change = [100 * (item["after"] - item["float"]) for item in held]
        worst, mean = min(change), float(np.mean(change))
        within = "within one point of" if worst >= -1 - 1e-9 else "not in every seed within one point of"
        lines.append(
            f"{profile}: after fine-tuning the integers are {within} float ({mean:+.2f} points on average, "
            f"{worst:+.2f} at worst, {len(held)} seed{'s' if len(held) > 1 else ''} of {held[0]['n_samples']} test "
            "samples)"
        )
    proven = [item["target"] for item in study["targets"] if item.get("proven")]
    rest = [item["target"] for item in study["targets"] if not item.get("proven") and "refused" not in item]
    cannot = [item["target"] for item in study["targets"] if "refused" in item]
    lines.append(f"spikes equal, proven by another program: {', '.join(proven) or 'none'}")
    if rest:
        lines.append(f"not proven: {', '.join(rest)}")
    if cannot:
        lines.append(f"cannot hold the network: {', '.join(cannot)}")
    for item in study["targets"]:
        if item.get("estimate"):
            lines.append(f"{item['target']}: {item['estimate'].rstrip('.')}")
        if "float_accuracy" in item:
            lines.append(
                f"{item['target']} ({item['network']}): float {_percent(item['float_accuracy'])}, integers "
                f"{_percent(item['integer_accuracy'])} of {item['n_test']} test samples, without fine-tuning"
            )
        if "no_accuracy" in item:
            lines.append(f"{item['target']}: no accuracy: {item['no_accuracy']}")
    return lines


def weight_histogram(before: Network, after: Network, profile: str) -> Figure:
    """Draw float weights and the integer weights of a target, in float units, one panel a connection.

    Args:
        before: Float network.
        after: The network that was trained on the grid.
        profile: The target.
    """
    tail = int(after.notes.get("tail_steps") or 0)
    integer, report = quantize(after, profile, tail_steps=tail)
    units = {item.population: item.unit for item in report.layers}
    names = list(dict.fromkeys(item.name for item in before.projections))
    with page_style():
        figure = new_figure(min(WIDTH, 1.0 + 4.2 * len(names)), 2.8)
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            old = np.concatenate([item.synapses(before.dt).weight for item in before.projections if item.name == name])
            new = [
                np.asarray(units[item.target])[item.unit] * item.weight
                for item in integer.projections
                if item.name == name and units[item.target] is not None
            ]
            theirs = np.concatenate(new) if new else np.zeros(0)
            most = float(max(np.abs(old).max(initial=0.0), np.abs(theirs).max(initial=0.0), 1e-9))
            edges = np.linspace(-most, most, 61)
            axes.stairs(
                np.histogram(theirs, edges)[0], edges, fill=True, color=COLOURS["blue"], alpha=0.65, label="integers"
            )
            axes.stairs(np.histogram(old, edges)[0], edges, color=INK, linewidth=1.1, label="float")
            axes.set_title(name.replace("->", " → "))
            axes.set_xlabel("weight (float units)")
            axes.set_ylabel("synapses")
            headroom(axes, 0.2)
            axes.legend(loc="upper right", ncols=2, borderaxespad=0.1)
        return figure


def hardware_page(study: Mapping[str, Any], networks: Mapping[str, Network]) -> str:
    """Return the page as HTML.

    Args:
        study: What ``study.json`` holds.
        networks: ``float`` and, by profile, the networks trained on a grid, of seed 0.
    """
    facts = study["facts"]
    claims = "".join(f"<p>{escape(line)}.</p>" for line in hardware_text(study))
    about = (
        f"Test set of {facts['data']}, {facts['test']} samples. The validation set chooses the epoch of both "
        "trainings; the test set chooses nothing."
    )
    sections = [
        ("claims", "What was found", claims),
        ("accuracy", "Accuracy", table_html(about, ACCURACY_HEAD, accuracy_rows(study))),
        (
            "targets",
            "Targets",
            table_html(
                "Proofs and counts on training samples; energies by published tables, nothing was measured on a device",
                TARGET_HEAD,
                target_rows(study),
                numbers=False,
            ),
        ),
    ]
    parts = []
    for profile in LAWS:
        if profile in networks:
            words = f"Weights of the float network and those of {profile} after fine-tuning, in float units; seed 0."
            picture = weight_histogram(networks["float"], networks[profile], profile)
            parts.append(figure_html(picture, f"weights-{profile}", words))
    if footprint(networks["float"]).delayed_synapses:
        words = "Delays of the float network, seed 0; fine-tuning keeps them."
        parts.append(figure_html(delay_histogram(networks["float"]), "delays", words))
    sections.append(("pictures", "Weights and delays", "".join(parts)))
    changes = "".join(
        f"<details><summary>{escape(item['target'])}: {escape(item['title'])}</summary><p>Network: "
        f"{escape(item['network'])}. {item['write_seconds']:.1f} s to write, {item['proof_seconds']:.1f} s to prove "
        f"with {escape(item.get('judge') or 'nothing')}. Files: {escape(', '.join(item['files'][:6]))} "
        f"({item['file_bytes']:,} bytes).</p><ul>"
        + "".join(f"<li>{escape(line)}</li>" for line in [*item["changes"], *item.get("remarks", [])])
        + "</ul></details>"
        for item in study["targets"]
        if "refused" not in item
    )
    sections.append(("changes", "What changed on the way", changes))
    return page_html(
        "One network through every target",
        f"A network with delays, trained on {facts['data']}, in the integers of chips and in the files of programs.",
        sections,
        footer="Made by snnsim reproduce hardware.",
    )


def write_hardware_page(path: str | Path, study: Mapping[str, Any], networks: Mapping[str, Network]) -> Path:
    """Write :func:`hardware_page` to a file, atomically, and return its path."""
    write_text(Path(path), hardware_page(study, networks))
    return Path(path)
