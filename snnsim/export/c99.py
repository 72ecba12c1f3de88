"""C99 and memory images: a network in integers of the law ``fixed`` as a header, a source and tables for flash.

The source allocates nothing and uses nothing but ``stdint.h``. Events act at once: a unit that fires walks its own
synapses and adds their weights to rings of arrivals, which are as long as the longest delay into their population.
Nothing else is done for a silent unit. The law and the interface are described in ``docs/hardware.md``.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.export import ExportReport
from snnsim.export.c99_layout import Layout, lay_out
from snnsim.export.c99_source import header_text, host_text, source_text
from snnsim.export.memory_images import INDEX, write_images
from snnsim.files import write_json, write_text
from snnsim.integer_network import IntegerNetwork
from snnsim.network import Network
from snnsim.quantize import QuantizeOptions, quantize
from snnsim.quantize_fixed import max_count

__all__ = ["INTEGERS", "MEMORY", "check_prefix", "write_c99"]

INTEGERS = "network.int.h5"
"""The integer network beside the source: the reference of a proof."""

MEMORY = "memory"
"""Folder of the memory images."""

ABOUT = "export.json"
PREFIX = "[A-Za-z][A-Za-z0-9_]{0,30}"
MAX_COUNT = 32
PROFILES = {8: "fixed8", 16: "fixed"}
"""Limits by the bits of a weight."""


def check_prefix(prefix: object) -> str:
    """Return a prefix of all names in C.

    Raises:
        InputError: It is not an identifier, or is reserved.
    """
    if not isinstance(prefix, str) or not re.fullmatch(PREFIX, prefix):
        raise InputError(
            f"prefix: expected a letter, then at most 30 letters, digits and underscores (a name in C), got {prefix!r}"
        )
    return prefix


def write_c99(
    network: Network | IntegerNetwork,
    path: str | Path,
    *,
    prefix: str = "snn",
    weight_bits: int = 8,
    scale: Literal["auto", "layer", "neuron"] = "auto",
    power_of_two: bool = False,
    counts: int | None = None,
    images: bool = True,
    calibration: Events | None = None,
) -> ExportReport:
    """Write a network as C99 source and memory images.

    Args:
        network: A float network, which is put on integers first, or one of the law ``fixed``.
        path: Folder; made if it does not exist. One that holds an earlier export, finished or broken off, is written
            anew: what that export wrote is removed, other files stay. Any other folder must be empty.
        prefix: What all names in C begin with; ``snn_step``, ``SNN_INPUTS``.
        weight_bits: 8 or 16, for a float network; with the next options see
            :class:`snnsim.quantize.QuantizeOptions`.
        scale: ``"layer"`` or ``"neuron"``; ``"auto"`` is a scale a neuron.
        power_of_two: Whether scales are powers of two.
        counts: How often one input unit may act in one step (default 32, or what the integer network can hold);
            a smaller number may need less memory.
        images: Whether to write the memory images.
        calibration: Training samples on which the scales are chosen; default: the largest weight just fits.

    Returns:
        What was written, with a sentence for everything that changed.

    Raises:
        InputError: The law cannot hold the network, an option is unknown, or something else lies at ``path``.
    """
    check_prefix(prefix)
    folder = Path(path)
    before = _exported(folder)
    if isinstance(network, IntegerNetwork):
        whole = network
        counts = min(MAX_COUNT, max_count(whole)) if whole.law == "fixed" and counts is None else counts or MAX_COUNT
    else:
        if weight_bits not in PROFILES:
            raise InputError(f"weight_bits: expected 8 or 16, got {weight_bits!r}")
        counts = MAX_COUNT if counts is None else counts
        options = QuantizeOptions(scale=scale, power_of_two=power_of_two, max_count=counts)
        tail = network.noted_steps("tail_steps")
        whole, _ = quantize(network, PROFILES[weight_bits], options=options, calibration=calibration, tail_steps=tail)
    layout = lay_out(whole, counts=counts)
    folder.mkdir(parents=True, exist_ok=True)
    for old in before:
        old.unlink(missing_ok=True)
    write_json(folder / ABOUT, {"law": "fixed", "prefix": prefix, "unfinished": True})  # whose files these are
    digest = whole.digest()
    write_text(folder / f"{prefix}.h", header_text(layout, prefix, digest))
    write_text(folder / f"{prefix}.c", source_text(layout, prefix))
    write_text(folder / f"{prefix}_host.c", host_text(prefix))
    whole.save(folder / INTEGERS)
    if images:
        write_images(layout, folder / MEMORY, digest)
    changes = (*whole.changes, *_sentences(layout))
    write_json(folder / ABOUT, _description(whole, layout, prefix, changes))
    return ExportReport("c99", folder, changes, {item.name: 0 for item in whole.populations})


def _exported(folder: Path) -> list[Path]:
    """Return the files of an earlier export in a folder.

    Raises:
        InputError: It is no folder, or one with other things in it.
    """
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise InputError(f"--out: {folder} is a file; the target c99 writes a folder")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        whole = about.get("unfinished") is True or (folder / INTEGERS).is_file()
        prefix, ours = about["prefix"], about["law"] == "fixed" and whole
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        prefix, ours = "", False
    if not ours:
        if any(folder.iterdir()):
            raise InputError(f"--out: {folder} holds something else than a C99 export; choose a new folder")
        return []
    names = [ABOUT, INTEGERS, "proof.json"]
    if isinstance(prefix, str) and re.fullmatch(PREFIX, prefix):
        names += [f"{prefix}.h", f"{prefix}.c", f"{prefix}_host.c"]
    images = [*(folder / MEMORY).glob("*.mem"), folder / MEMORY / INDEX]
    return [*(folder / name for name in names), *images]


def _sentences(layout: Layout) -> list[str]:
    lines = [
        f"Constant tables take {layout.table_bytes} bytes, memory {layout.state_bytes} bytes.",
        f"One input unit may act at most {layout.max_count} times in a step; more could overflow a sum.",
    ]
    for item in layout.populations:
        if item.name != item.title:
            lines.append(f"{item.title} is called {item.name} in C.")
    return lines


def _description(whole: IntegerNetwork, layout: Layout, prefix: str, changes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "schema": 1,
        "law": "fixed",
        "prefix": prefix,
        "network": whole.digest(),
        "source_network": whole.source,
        "max_count": layout.max_count,
        "readout": None if whole.readout is None else asdict(whole.readout),
        "scale": {name: [float(value.min()), float(value.max())] for name, value in whole.scale.items()},
        "table_bytes": layout.table_bytes,
        "state_bytes": layout.state_bytes,
        "tables": {item.name: item.n_bytes for item in layout.tables()},
        "state": {name: words * bits // 8 for name, words, bits in layout.arrays()},
        "classes": 0 if layout.readout is None else layout.populations[layout.readout].size,
        "layers": [
            {"title": item.title, "name": item.name, "size": item.size, "spiking": item.spiking}
            for item in layout.populations
        ],
        "changes": list(changes),
    }
