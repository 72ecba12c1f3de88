"""Brian2 in C++ standalone mode: a program that simulates a first stretch and then turn by turn, timed inside.

Every turn starts the program anew; it comes to the turn that is asked for and ends there. What counts is the wall time
of that turn's run: translation, compilation, set-up and what came before do not. The flags are Brian2's own
(``-O3 -ffast-math -march=native``).

The order is ours: neurons, synapses, thresholds, resets. A step of Brian2 begins with the thresholds here, because the
end of a run forgets the spikes that are not handed on yet: its step k + 1 tests thresholds for our step k and then does
neurons and synapses of our step k + 1. So a delay of d steps is d - 1 here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ORDER = ["start", "thresholds", "resets", "groups", "synapses", "end"]

GAP = 60
"""Steps between two samples in which whatever is on its way arrives, not measured."""

TURNS = "SNNSIM_BENCH_TURNS"
"""How many turns a start of the program simulates."""

CLOCK = f"""std::chrono::steady_clock::time_point bench_begin;
int bench_left = 1 + std::atoi(std::getenv("{TURNS}"));"""
BEGIN = "if (bench_left-- > 0) { bench_begin = std::chrono::steady_clock::now();"
END = """double bench_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - bench_begin).count();
long bench_pages = 0;
std::ifstream("/proc/self/statm") >> bench_pages >> bench_pages;
std::ofstream("bench.txt", std::ios::app) << bench_seconds << " " << bench_pages * sysconf(_SC_PAGESIZE) << std::endl;
}"""


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {"brian2": version("brian2")}


def _groups(net: Any) -> list[Any]:
    from brian2 import NeuronGroup, ms

    equations = f"dv/dt = (drive - v) / ({net.tau_mem} * ms) : 1 (unless refractory)"
    if net.tau_exc:
        equations = f"""dv/dt = (drive + i_exc + i_inh - v) / ({net.tau_mem} * ms) : 1 (unless refractory)
        di_exc/dt = -i_exc / ({net.tau_exc} * ms) : 1
        di_inh/dt = -i_inh / ({net.tau_inh} * ms) : 1"""
    if not net.t_ref:
        equations = equations.replace("(unless refractory)", "")
    made = []
    for layer in net.layers:
        group = NeuronGroup(
            layer.size,
            equations,
            threshold=f"v >= {net.v_threshold}",
            reset=f"v = {net.v_reset}",
            refractory=net.t_ref * ms if net.t_ref else False,
            method="exact",
            namespace={"drive": net.drive},
        )
        group.v = layer.v
        made.append(group)
    return made


def _synapses(net: Any, groups: list[Any], inputs: Any) -> list[Any]:
    import numpy as np
    from brian2 import Synapses, ms

    made = []
    for place, layer in enumerate(net.layers):
        for begin, rows in layer.rows:
            onto = f"i_{rows.receptor}" if rows.receptor else "v"
            own = isinstance(rows.weight, np.ndarray)
            synapses = Synapses(
                inputs if begin < 0 else groups[begin],
                groups[place],
                "w : 1" if own else "",
                on_pre=f"{onto}_post += w" if own else f"{onto}_post += {rows.weight!r}",
                delay=None if isinstance(rows.steps, np.ndarray) else (rows.steps - 1) * net.dt * ms,
            )
            synapses.connect(i=rows.source, j=rows.target.astype(np.int32))
            if own:
                synapses.w = rows.weight
            if isinstance(rows.steps, np.ndarray):
                synapses.delay = (rows.steps.astype(float) - 1) * net.dt * ms
            made.append(synapses)
    return made


def build(task: dict[str, Any], build_net: Callable[[dict[str, Any]], Any]) -> Callable[[], object]:
    """Return a function that runs the program and says how long its measured part took and what happened in it."""
    if not task["small"]:
        return lambda: None  # a small program would only be compiled in vain

    import shutil
    import sys

    if shutil.which("g++") is None:
        raise RuntimeError("Brian2 needs a C++ compiler, and there is no g++ on the path")
    import numpy as np
    from brian2 import Network, PoissonInput, SpikeGeneratorGroup, SpikeMonitor, defaultclock, device, ms, prefs
    from brian2 import set_device as choose

    sys.excepthook = sys.__excepthook__  # Brian2's own ends with advice instead of the reason
    net = build_net(task)
    n_steps, turn = task["n_steps"], max(1, task["turn"])
    turns = max(1, task["rounds"]) if task["turn"] else 1  # samples that start anew need no second turn
    folder = tempfile.TemporaryDirectory(prefix="snnsim-bench-brian2-")
    choose("cpp_standalone", directory=folder.name, build_on_run=False)
    prefs.codegen.cpp.headers = ["<chrono>", "<unistd.h>"]
    prefs.devices.cpp_standalone.openmp_threads = task["threads"] if task["threads"] > 1 else 0
    device.insert_code("before_start", CLOCK)
    device.insert_code("before_network_run", BEGIN)
    device.insert_code("after_network_run", END)
    defaultclock.dt = net.dt * ms
    first = n_steps + (GAP if net.inputs else 0)
    groups, parts = _groups(net), []
    inputs = None
    if net.inputs:
        steps = np.concatenate([net.input_step, net.input_step + first]) + 1
        inputs = SpikeGeneratorGroup(net.inputs, np.tile(net.input_unit, 2), steps * net.dt * ms)
        parts.append(inputs)
    parts += _synapses(net, groups, inputs)
    if net.noise_rate:
        # a thousand sources a neuron, as in the paper
        rate = net.noise_rate / 1000 / (1000 * ms)
        parts += [PoissonInput(group, "v", 1000, rate, net.noise_weight) for group in groups]
    monitors = [SpikeMonitor(group) for group in groups]
    whole = Network(*groups, *parts, *monitors)
    whole.schedule = ORDER
    whole.run((first + 1) * net.dt * ms)
    if net.inputs:
        for group in groups:
            group.v = 0
    for _ in range(turns):
        whole.run(n_steps * turn * net.dt * ms)
    device.build(directory=folder.name, compile=True, run=False)
    out, given = [net.out_degree(place) for place in range(len(groups))], net.input_events()
    n_exc, dt = net.n_exc, net.dt
    notes = Path(folder.name) / "bench.txt"
    done = 0
    del net

    def step() -> dict[str, Any]:
        nonlocal done
        now = min(max(done, 1), turns)  # the first call tells of the first stretch
        done += 1
        notes.unlink(missing_ok=True)
        os.environ[TURNS] = str(now)
        device.run(directory=folder.name, with_output=False)
        times = [line.split() for line in notes.read_text().splitlines()]
        begin = first + (now - 1) * n_steps * turn
        begun: dict[str, Any] = {"seconds": float(times[0][0]), "spikes": [], "events": given}
        rest: dict[str, Any] = {"seconds": float(times[now][0]), "spikes": [], "events": given, "stretches": turn}
        for monitor, degree in zip(monitors, out, strict=True):
            unit = np.asarray(monitor.i[:])
            when = np.rint(np.asarray(monitor.t[:] / ms) / dt).astype(np.int64) - 1
            for facts, inside in ((begun, when < n_steps), (rest, when >= begin)):
                chosen = unit[inside]
                counts = [len(chosen)]
                if n_exc:
                    counts = [int((chosen < n_exc).sum()), int((chosen >= n_exc).sum())]
                facts["spikes"] += counts
                facts["events"] += int(degree[chosen].sum())
        return {**rest, "first": begun, "memory": int(times[now][1])}

    step.folder = folder  # type: ignore[attr-defined]  # it lives as long as the program is needed
    return step
