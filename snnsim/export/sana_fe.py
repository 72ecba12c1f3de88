"""SANA-FE networks (YAML) on its Loihi architecture: energy and latency, and the same spikes.

SANA-FE's leaky neuron keeps its decayed potential in 64ths, cut toward zero: the law ``loihi2`` of neurons without a
current, once weights and thresholds are whole. A delay of more than a step is a line of relay neurons, one a step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.export import ExportReport
from snnsim.export.integer_meta import to_integers
from snnsim.files import write_text
from snnsim.integer_network import IntegerNetwork
from snnsim.network import Network

__all__ = ["write_sana_fe"]

PER_CORE, CORES, CORES_A_TILE = 1024, 128, 4
NEVER = 1e9


def write_sana_fe(
    network: Network | IntegerNetwork,
    path: str | Path,
    *,
    delays: Literal["relay", "refuse"] = "relay",
    scale: Literal["auto", "layer", "neuron"] = "auto",
    calibrate: Events | None = None,
) -> ExportReport:
    """Write network and mapping for SANA-FE's ``loihi.yaml``.

    Args:
        network: A frozen network, quantised with the profile ``loihi2``, or an integer network of law ``loihi2``; its
            neurons without a synaptic current.
        path: File to write, ``.yaml``.
        delays: Longer delays than a step become relay neurons, or are refused.
        scale: See :class:`snnsim.quantize.QuantizeOptions`.
        calibrate: Training events on which scales are chosen.

    Raises:
        InputError: The architecture cannot hold the network; the sentence says what and what to do.
    """
    whole = to_integers(network, "loihi2", "loihi2", "refuse", scale, calibrate)
    if len(whole.inputs) != 1:
        raise InputError(f"sana-fe: expected one input, the network has {len(whole.inputs)}; join them into one")
    for item in whole.populations:
        if item.current:
            raise InputError(
                f"sana-fe: population {item.name!r} has a synaptic current, the architecture's neuron has none; train "
                "LIF neurons"
            )
    sizes = {whole.inputs[0].name: whole.inputs[0].size}
    sizes |= {item.name: item.size for item in whole.populations}
    group = {name: f"g{place}" for place, name in enumerate(sizes)}
    longest = {
        name: max((int(item.delay.max(initial=1)) for item in whole.projections if item.source == name), default=1)
        for name in sizes
    }
    relays = {name: sizes[name] * (longest[name] - 1) for name in sizes}
    changes = list(whole.changes)
    if sum(relays.values()):
        if delays == "refuse":
            raise InputError(
                f"sana-fe: delays of up to {max(longest.values())} steps; train without delays, or write relay neurons"
            )
        changes.append(
            f"Delays are {sum(relays.values())} relay neurons, beside {sum(sizes.values())} of the network: spikes are "
            "the same, energy and neuron counts include the relays."
        )
    mapping = list(_mapping(whole, group, sizes, relays))
    meta = {
        "input": [group[whole.inputs[0].name], whole.inputs[0].size],
        "groups": {item.name: [group[item.name], item.size] for item in whole.populations},
    }
    lines = [f"# snnsim {json.dumps(meta)}", "network:", "  name: snnsim", "  groups:"]
    given = whole.inputs[0]
    lines += [f"    - name: {group[given.name]}", "      attributes: [log_spikes: true]", "      neurons:"]
    lines += [f"        - {k}: [soma: {{spikes: []}}]" for k in range(given.size)]
    for item in whole.populations:
        p = item.parameters
        lines += [f"    - name: {group[item.name]}", "      attributes: [log_spikes: true]", "      neurons:"]
        for k in range(item.size):
            threshold = float(p["v_threshold"][k]) if item.spiking else NEVER
            decay = (4096 - int(p["v_decay"][k])) / 4096
            lines.append(
                f"        - {k}: [soma: {{threshold: {threshold!r}, leak_decay: {decay!r}, reset_mode: hard, "
                f"reset: 0.0, bias: {float(p['bias'][k])!r}, force_update: true}}]"
            )
    for name, count in relays.items():
        if count:
            lines += [f"    - name: {group[name]}r", "      attributes: []", "      neurons:"]
            soma = "threshold: 0.5, leak_decay: 0.0, reset_mode: hard, reset: 0.0, force_update: true"
            lines += [f"        - {k}: [soma: {{{soma}}}]" for k in range(count)]
    lines.append("  edges:")
    for name, count in relays.items():
        for k in range(count):
            hop, unit = divmod(k, sizes[name])
            before = f"{group[name]}.{unit}" if hop == 0 else f"{group[name]}r.{k - sizes[name]}"
            lines.append(f"    - {before} -> {group[name]}r.{k}: [weight: 1.0]")
    for projection in whole.projections:
        start, end, size = group[projection.source], group[projection.target], sizes[projection.source]
        columns = (projection.sources(), projection.unit, projection.weight, projection.delay)
        for source, unit, weight, delay in zip(*(np.asarray(c).tolist() for c in columns), strict=True):
            place = f"{start}.{source}" if delay == 1 else f"{start}r.{(delay - 2) * size + source}"
            lines.append(f"    - {place} -> {end}.{unit}: [weight: {float(weight)!r}]")
    write_text(path, "\n".join([*lines, "mappings:", *mapping]) + "\n")
    return ExportReport("sana-fe", Path(path), tuple(changes), {name: -k for name, k in whole.latency.items()})


def _mapping(
    whole: IntegerNetwork, group: dict[str, str], sizes: dict[str, int], relays: dict[str, int]
) -> Iterator[str]:
    """Yield the mapping's lines: every group begins on a core of its own.

    Raises:
        InputError: There are not enough cores.
    """
    core = 0
    groups = [(group[name], size) for name, size in sizes.items()]
    groups += [(f"{group[name]}r", count) for name, count in relays.items() if count]
    needed = sum(-(-size // PER_CORE) for _, size in groups)
    if needed > CORES:
        raise InputError(
            f"sana-fe: needs {needed} cores of {PER_CORE} neurons with relays, the architecture has {CORES}; train "
            "shorter delays or a smaller network"
        )
    for place, (name, size) in enumerate(groups):
        for low in range(0, size, PER_CORE):
            high = min(low + PER_CORE, size) - 1
            where = f"core: {core // CORES_A_TILE}.{core % CORES_A_TILE}"
            units = "dendrite: loihi_dendrites, synapse: loihi_dense_synapse"
            if place == 0:
                for k in range(low, high + 1):
                    yield f'  - {name}.{k}: [{where}, soma: "loihi_inputs[{k - low}]", {units}]'
            else:
                span = f"{low}..{high}" if high > low else f"{low}"
                yield f"  - {name}.{span}: [{where}, soma: loihi_lif, {units}]"
            core += 1
