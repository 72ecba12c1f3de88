"""Run a Xylo specification in xylosim: a program for an interpreter of its own.

Usage: ``python xylo_runner.py SPEC.npz INPUTS.npz OUTPUTS.npz``; it imports only NumPy and xylosim 0.1.3. The inputs
hold ``counts``, ``(samples, steps, channels)``; the
outputs ``hidden`` and ``output``, ``(samples, steps, neurons)``, and
``versions``.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import numpy as np


def synapses(matrix: Any, make: Any) -> list[list[Any]]:
    """Return the non-zero synapses of ``(sources, targets)`` by source."""
    return [
        [make(target_neuron_id=int(k), target_synapse_id=0, weight=int(row[k])) for k in np.flatnonzero(row)]
        for row in matrix
    ]


def main(model: str, inputs: str, outputs: str) -> None:
    """Run every sample of ``inputs`` and write ``outputs``."""
    from xylosim.v2 import XyloLayer, XyloSynapse

    spec = np.load(model)
    lists = [synapses(spec[name], XyloSynapse) for name in ("weights_in", "weights_rec", "weights_out")]
    layer = XyloLayer(  # it keeps pointers only: `lists` must live as long as it does
        synapses_in=lists[0],
        synapses_rec=lists[1],
        synapses_out=lists[2],
        aliases=[[] for _ in range(spec["weights_rec"].shape[0])],
        threshold=spec["threshold"].tolist(),
        threshold_out=spec["threshold_out"].tolist(),
        has_bias=bool(np.any(spec["bias"]) or np.any(spec["bias_out"])),
        bias=spec["bias"].tolist(),
        bias_out=spec["bias_out"].tolist(),
        weight_shift_inp=int(spec["weight_shift_in"]),
        weight_shift_rec=int(spec["weight_shift_rec"]),
        weight_shift_out=int(spec["weight_shift_out"]),
        dash_mem=spec["dash_mem"].tolist(),
        dash_mem_out=spec["dash_mem_out"].tolist(),
        dash_syns=[[int(a), int(b)] for a, b in zip(spec["dash_syn"], spec["dash_syn_2"], strict=True)],
        dash_syns_out=[[int(a)] for a in spec["dash_syn_out"]],
        name="snnsim",
    )
    hidden, output = [], []
    for sample in np.load(inputs)["counts"]:
        layer.reset_all()
        layer.evolve(sample.astype(np.uint8).tolist())
        hidden.append(np.array(layer.rec_recurrent_spikes, np.uint8))
        output.append(np.array(layer.rec_out_spikes, np.uint8))
    versions = [f"xylosim {version('xylosim')}", f"numpy {np.__version__}", f"python {sys.version.split()[0]}"]
    np.savez(outputs, hidden=np.stack(hidden), output=np.stack(output), versions=np.array(versions))
    del lists


if __name__ == "__main__":
    main(*sys.argv[1:4])
