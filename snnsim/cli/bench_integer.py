"""`snnsim bench integer`: a chip's arithmetic beside the chip's own simulator."""

from __future__ import annotations

import time

from snnsim.cli.bench_options import Json, Pythons, Rounds, Threads, interpreters
from snnsim.cli.output import emit, note

__all__ = ["integer"]


def integer(rounds: Rounds = 5, threads: Threads = None, python: Pythons = None, json: Json = False) -> None:
    """Time the integer engine beside Lava's fixed-point simulator on the same network and events, in turn."""
    from snnsim.bench.integer import format_integer, measure_integer
    from snnsim.machine import usable_cores

    begin = time.perf_counter()
    pythons = interpreters(python, ["lava"])
    note("a chain of three layers in Loihi's law; Lava takes some seconds a turn ...")
    race = measure_integer(threads or usable_cores(), rounds, pythons)
    emit({"seconds": time.perf_counter() - begin, **race.to_json()}, json, format_integer(race))
