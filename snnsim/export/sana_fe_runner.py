"""Run a SANA-FE network on its Loihi architecture: a program for an interpreter of its own.

Usage: ``python sana_fe_runner.py NETWORK.yaml INPUTS.npz OUTPUTS.npz``; it imports only NumPy and sanafe 2.2.9. The
inputs hold ``counts``, ``(samples, steps, channels)``; the outputs spikes by population, ``energy`` in J (synapse,
dendrite, soma, network, total) and ``time`` in s of every sample, and ``versions``.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

ENERGIES = ("synapse", "dendrite", "soma", "network", "total")


def main(model: str, inputs: str, outputs: str) -> None:
    """Run every sample of ``inputs`` and write ``outputs``."""
    import sanafe

    lines = Path(model).read_text(encoding="utf-8").splitlines()
    meta = json.loads(lines[0].removeprefix("# snnsim "))
    first = lines.index("      neurons:") + 1
    place = {group: (name, size) for name, (group, size) in meta["groups"].items()}
    counts = np.load(inputs)["counts"]
    n_steps = counts.shape[1]
    spikes = {name: np.zeros((*counts.shape[:2], size), np.uint8) for name, size in place.values()}
    energy, seconds = [], []
    for number, sample in enumerate(counts):
        for channel in range(meta["input"][1]):
            values = [int(value) for value in sample[:, channel]]
            lines[first + channel] = f"        - {channel}: [soma: {{spikes: {values}}}]"
        file = Path(outputs).with_name(f"sample{number}.yaml")
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        architecture = sanafe.load_loihi()
        chip = sanafe.SpikingChip(architecture)
        chip.load(sanafe.load_net(str(file), architecture))
        result = chip.sim(n_steps, spike_trace=True, timing_model="simple", processing_threads=1)
        for step, row in enumerate(result["spike_trace"]):
            for item in row:
                if item.group_name in place:
                    spikes[place[item.group_name][0]][number, step, item.neuron_offset] = 1
        energy.append([result["energy"][name] for name in ENERGIES])
        seconds.append(result["sim_time"])
        file.unlink()
    versions = [f"sanafe {version('sanafe')}", f"numpy {np.__version__}", f"python {sys.version.split()[0]}"]
    arrays = {f"spikes_{name}": value for name, value in spikes.items()}
    np.savez(outputs, energy=np.array(energy), time=np.array(seconds), versions=np.array(versions), **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:4])
