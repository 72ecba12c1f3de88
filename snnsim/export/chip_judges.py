"""Judges of chip exports: a written file run by the program of :mod:`snnsim.export.oracle`.

A judge has ``name``, ``versions`` and ``seconds`` (of every sample of its last run, if the program says so), and
``run(counts)`` takes events ``(samples, steps, channels)`` and returns spikes a step by population,
``(samples, steps, neurons)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.export.lava_read import read_lava
from snnsim.export.oracle import ORACLES
from snnsim.export.xylo import read_xylo
from snnsim.integer_network import IntegerNetwork

__all__ = ["LavaJudge", "SanaFeJudge", "XyloJudge"]

Array = npt.NDArray[Any]


class LavaJudge:
    """A ``.net`` file in Lava's fixed-point simulator.

    Args:
        path: The file.
        pythons: Interpreters by name; see :mod:`snnsim.export.oracle`.

    Raises:
        OracleMissingError: Lava is not installed there.
        SnnsimFileError: The file is damaged.
    """

    max_count = 1

    def __init__(self, path: str | Path, pythons: Mapping[str, str] | None = None) -> None:
        self.network: IntegerNetwork = read_lava(path)
        self.path, self.oracle = Path(path), ORACLES["lava"]
        self.command = self.oracle.interpreter(pythons)
        self.name, self.versions = self.oracle.title, [""]
        self.seconds: list[float] = []

    def run(self, counts: Array) -> dict[str, Array]:
        """Run samples, each from rest."""
        found = self.oracle.run(self.path, {"counts": counts.astype(np.int8)}, self.command)
        self.versions = [str(item) for item in found["versions"]]
        self.seconds = found["seconds"].tolist()
        return {
            item.name: found[f"layer{number}"].astype(np.int64)
            for number, item in enumerate(self.network.populations, 1)
        }


class XyloJudge:
    """A specification in xylosim.

    Args:
        path: The file.
        pythons: Interpreters by name; see :mod:`snnsim.export.oracle`.

    Raises:
        OracleMissingError: xylosim is not installed there.
        SnnsimFileError: The file is damaged.
    """

    max_count = 15

    def __init__(self, path: str | Path, pythons: Mapping[str, str] | None = None) -> None:
        self.network: IntegerNetwork = read_xylo(path)
        self.path, self.oracle = Path(path), ORACLES["xylo"]
        self.command = self.oracle.interpreter(pythons)
        self.name, self.versions = self.oracle.title, [""]
        self.seconds: list[float] = []

    def run(self, counts: Array) -> dict[str, Array]:
        """Run samples, each from rest."""
        found = self.oracle.run(self.path, {"counts": counts.astype(np.uint8)}, self.command)
        self.versions = [str(item) for item in found["versions"]]
        spikes: dict[str, Array] = {}
        begin = 0
        for item in self.network.populations[:-1]:
            spikes[item.name] = found["hidden"][:, :, begin : begin + item.size].astype(np.int64)
            begin += item.size
        return spikes | {self.network.populations[-1].name: found["output"].astype(np.int64)}


class SanaFeJudge:
    """A YAML network in SANA-FE on its Loihi architecture.

    Args:
        path: The file.
        pythons: Interpreters by name; see :mod:`snnsim.export.oracle`.

    Attributes:
        energy: Joules of every sample of the last run: synapse, dendrite, soma, network, total, ``(samples, 5)``.
        time: Seconds that the chip would take for every sample, ``(samples,)``.

    Raises:
        OracleMissingError: SANA-FE is not installed there.
    """

    max_count = 1

    def __init__(self, path: str | Path, pythons: Mapping[str, str] | None = None) -> None:
        self.path, self.oracle = Path(path), ORACLES["sana-fe"]
        self.command = self.oracle.interpreter(pythons)
        self.name, self.versions = self.oracle.title, [""]
        self.seconds: list[float] = []
        self.energy = np.zeros((0, 5))
        self.time = np.zeros(0)

    def run(self, counts: Array) -> dict[str, Array]:
        """Run samples, each from rest."""
        found = self.oracle.run(self.path, {"counts": counts.astype(np.int8)}, self.command)
        self.versions = [str(item) for item in found["versions"]]
        self.energy, self.time = found["energy"], found["time"]
        names = [name for name in found if name.startswith("spikes_")]
        return {name.removeprefix("spikes_"): found[name].astype(np.int64) for name in names}
