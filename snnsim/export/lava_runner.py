"""Run a ``.net`` file in Lava's fixed-point simulator: a program for an interpreter of its own.

Usage: ``python lava_runner.py MODEL.net INPUTS.npz OUTPUTS.npz``. It imports nothing of snnsim: only NumPy,
lava-nc 0.10.0 and lava-dl 0.6.0. The inputs
hold ``counts``, ``(samples, steps, channels)``, at most one event a channel and step. The
outputs hold ``layer1``, ``layer2`` ... with the spikes of every layer, ``(samples, steps, neurons)``, ``seconds`` of
every sample and ``versions``. A sample is a run of its own, from rest.

Python 3.11 needs two patches while the libraries are imported: their data classes must hash (Python refuses a mutable
default without it), and ``cv2`` and the detection module, which no network here uses, are replaced by empty modules.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import sys
import time
import types
from importlib.metadata import version
from typing import Any

import numpy as np


def import_lava() -> Any:
    """Import what runs a ``.net`` file, patched for Python 3.11; return ``lava.lib.dl.netx.hdf5``."""
    importlib.import_module("torch")  # before the patch, which must not reach its classes

    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        def wrap(cls: Any) -> Any:
            if cls.__module__.startswith("lava."):
                options.setdefault("unsafe_hash", True)
            return original(cls, **options)

        return wrap if cls is None else wrap(cls)

    for name in ("cv2", "lava.lib.dl.slayer.object_detection"):
        sys.modules.setdefault(name, types.ModuleType(name))
    dataclasses.dataclass = dataclass
    try:
        from lava.lib.dl.netx import hdf5
    finally:
        dataclasses.dataclass = original
    return hdf5


def run_sample(hdf5: Any, path: str, counts: Any) -> list[Any]:
    """Run one sample, ``(steps, channels)``; return spikes of every layer, ``(steps, neurons)``."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source

    n_steps = counts.shape[0]
    network = hdf5.Network(net_config=path)
    source = Source(data=np.ascontiguousarray(counts.T).astype(int))
    source.s_out.connect(network.inp)
    sinks = []
    for layer in network.layers:
        sink = Sink(shape=layer.out.shape, buffer=n_steps)
        layer.out.connect(sink.a_in)
        sinks.append(sink)
    config = Loihi2SimCfg(select_tag="fixed_pt")
    source._log_config.level = logging.ERROR
    source.run(condition=RunSteps(num_steps=n_steps), run_cfg=config)
    found = [np.asarray(sink.data.get()).reshape(-1, n_steps).T.copy() for sink in sinks]
    source.stop()
    return found


def main(model: str, inputs: str, outputs: str) -> None:
    """Run every sample of ``inputs`` and write ``outputs``."""
    begin = time.perf_counter()
    hdf5 = import_lava()
    started = time.perf_counter() - begin
    counts = np.load(inputs)["counts"]
    seconds, spikes = [], []
    for sample in counts:
        begin = time.perf_counter()
        spikes.append(run_sample(hdf5, model, sample))
        seconds.append(time.perf_counter() - begin)
    layers = {
        f"layer{number + 1}": np.stack([item[number] for item in spikes]).astype(np.int8)
        for number in range(len(spikes[0]))
    }
    names = ("lava-nc", "lava-dl", "numpy", "torch")
    np.savez(
        outputs,
        seconds=np.array(seconds),
        start_seconds=np.array(started),
        versions=np.array([f"{name} {version(name)}" for name in names] + [f"python {sys.version.split()[0]}"]),
        **layers,  # type: ignore[arg-type]
    )


if __name__ == "__main__":
    main(*sys.argv[1:4])
