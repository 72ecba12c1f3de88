"""NEST: the same synapses, the same start, a stretch of a run that goes on.

NEST's step k + 1 is our step k. Its first call of Simulate sets the network up, and is never measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PIECE = 2_000_000
"""Synapses that are handed over together."""

GAP = 60
"""Steps between two samples in which whatever is on its way arrives, not measured."""


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {"nest-simulator": version("nest-simulator")}


def _neurons(net: Any, precise: bool) -> list[Any]:
    import nest

    parameters = {
        "E_L": 0.0,
        "V_th": net.v_threshold,
        "V_reset": net.v_reset,
        "tau_m": net.tau_mem,
        "t_ref": net.t_ref,
        "C_m": net.tau_mem if net.tau_exc else 1.0,
        "I_e": net.drive / net.tau_mem,
    }
    model = "iaf_psc_delta"
    if net.tau_exc:
        model = "iaf_psc_exp_ps" if precise else "iaf_psc_exp"
        parameters |= {"tau_syn_ex": net.tau_exc, "tau_syn_in": net.tau_inh, "I_e": net.drive}
    made = []
    for layer in net.layers:
        neurons = nest.Create(model, layer.size, parameters)
        neurons.V_m = layer.v
        made.append(neurons)
    return made


def _connect(net: Any, layers: list[Any], inputs: Any) -> None:
    import nest
    import numpy as np

    for place, layer in enumerate(net.layers):
        target_first = layers[place][0].global_id
        for begin, rows in layer.rows:
            source_first = (inputs if begin < 0 else layers[begin])[0].global_id
            source = rows.source
            for first in range(0, len(source), PIECE):
                piece = slice(first, min(first + PIECE, len(source)))
                size = piece.stop - first
                weight = rows.weight[piece] if isinstance(rows.weight, np.ndarray) else np.full(size, rows.weight)
                steps = rows.steps[piece] if isinstance(rows.steps, np.ndarray) else np.full(size, rows.steps)
                synapses = {
                    "weight": weight.astype(np.float64),
                    "delay": steps.astype(np.float64) * net.dt,
                    "synapse_model": "static_synapse",
                }
                sources = source[piece].astype(np.int64) + source_first
                targets = rows.target[piece].astype(np.int64) + target_first
                nest.Connect(sources, targets, "one_to_one", synapses)


def build(task: dict[str, Any], build_net: Callable[[dict[str, Any]], Any]) -> Callable[[], object]:
    """Return a function that simulates one stretch and says how long it took and what happened in it."""
    import nest
    import numpy as np

    net = build_net(task)
    nest.ResetKernel()
    nest.set_verbosity("M_ERROR")
    nest.resolution = net.dt
    nest.local_num_threads = task["threads"]
    nest.rng_seed = 1
    layers = _neurons(net, task["engine"] == "event")
    recorders = []
    for neurons in layers:
        recorders.append(nest.Create("spike_recorder"))
        nest.Connect(neurons, recorders[-1])
    inputs: Any = nest.Create("spike_generator", net.inputs) if net.inputs else None
    _connect(net, layers, inputs)
    if net.noise_rate:
        noise = nest.Create("poisson_generator", params={"rate": net.noise_rate})
        for neurons in layers:
            nest.Connect(noise, neurons, syn_spec={"weight": net.noise_weight, "delay": 1.5})
    out = [net.out_degree(place) for place in range(len(layers))]
    given = net.input_events()
    n_steps, dt, n_exc, now = task["n_steps"], net.dt, net.n_exc, 0
    lead = 1 if task["engine"] == "event" else 0  # ours begins at -dt and ends with the stretch, at exact times
    trains = []
    if net.inputs:
        trains = [net.input_step[net.input_unit == unit] + 1 for unit in range(net.inputs)]
    del net

    def step() -> dict[str, Any]:
        nonlocal now, lead
        if trains:  # a sample of its own, from zero; neither this nor the gap behind it is measured
            for generator, train in zip(inputs, trains, strict=True):
                generator.spike_times = (train + now) * dt
            for neurons in layers:
                neurons.V_m = 0.0
        begin = time.perf_counter()
        nest.Simulate((n_steps + lead) * dt)
        lead = 0
        seconds = time.perf_counter() - begin
        spikes: list[int] = []
        events = given
        for neurons, recorder, degree in zip(layers, recorders, out, strict=True):
            senders = np.asarray(recorder.events["senders"], dtype=np.int64) - neurons[0].global_id
            spikes.append(len(senders))
            events += int(degree[senders].sum())
            if n_exc:
                first = int((senders < n_exc).sum())
                spikes = [first, len(senders) - first]
        now += n_steps
        if trains:
            nest.Simulate(GAP * dt)
            now += GAP
        for recorder in recorders:
            recorder.n_events = 0
        return {"seconds": seconds, "spikes": spikes, "events": events}

    return step
