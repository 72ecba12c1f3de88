"""Engine "cuda" on a device at real size: in float64 no spike differs from the clock engine's, and mistakes are seen.

The same tests run at toy size in Numba's simulator.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from gpu_device import device_for

from snnsim.engines import Result, simulate
from snnsim.events import Events
from snnsim.models import brunel, microcircuit
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import LI, LIF, CubaLIF

DT = 1e-3
GIB = 1 << 30


@dataclass(frozen=True)
class Size:
    """Sizes of a network and its input.

    Attributes:
        sizes: Inputs, two hidden layers, classes.
        n_steps: Steps of a sample.
        samples: Samples.
        spikes: Least spikes of every hidden layer.
        real: Whether it needs a device.
    """

    sizes: tuple[int, int, int, int]
    n_steps: int
    samples: int
    spikes: int
    real: bool


TOY = Size((3, 4, 3, 2), 12, 1, 3, False)
SHD = Size((140, 256, 256, 20), 300, 16, 10_000, True)
SEED = 8
LAWS = ("lif", "cuba")
SIZES = [pytest.param(TOY, id="toy"), pytest.param(SHD, id="shd", marks=pytest.mark.gpu)]


def make_network(size: Size, law: str) -> Network:
    """Return a layered network with delays, time constants and drives of its own in every synapse and neuron."""
    draw = np.random.default_rng(SEED)
    inputs, first, second, classes = size.sizes

    def neurons(n: int) -> Any:
        own: dict[str, Any] = {"tau_mem": draw.uniform(0.01, 0.03, n), "drive": draw.uniform(5.0, 25.0, n)}
        if law == "cuba":
            return CubaLIF(tau_syn=draw.uniform(0.004, 0.01, n), t_ref=2 * DT, **own)
        return LIF(reset="subtract", t_ref=draw.integers(0, 3, n) * DT, **own)

    def synapses(source: str, target: str, n_source: int, n_target: int, gain: float) -> Projection:
        weight = draw.normal(0.3, 1.0, (n_target, n_source)) * gain / np.sqrt(n_source)
        return Projection(source, target, weight, draw.integers(0, 25 if size.real else 4, (n_target, n_source)) * DT)

    gain = (2.0 if law == "cuba" else 0.45) * (1 if size.real else 20)
    return Network(
        (
            Population("first", first, neurons(first)),
            Population("second", second, neurons(second)),
            Population("out", classes, LI(tau_mem=0.02)),
        ),
        (
            synapses("in", "first", inputs, first, gain),
            synapses("first", "second", first, second, gain),
            synapses("second", "out", second, classes, 1.0),
        ),
        (Input("in", inputs),),
        Readout("out"),
        DT,
    )


def make_events(size: Size) -> Events:
    draw = np.random.default_rng(6)
    times, units = [], []
    for _ in range(size.samples):
        step, unit = np.nonzero(draw.random((size.n_steps, size.sizes[0])) < (0.1 if size.real else 0.5))
        times.append(step * DT)
        units.append(unit)
    return Events.from_lists(times, units, size.sizes[0], duration=size.n_steps * DT)


def differing(a: Result, b: Result) -> int:
    """Return how many spikes one of two results has and the other has not."""
    found = 0
    for name, ours in a.spikes.items():
        theirs = b.spikes[name]
        for sample in range(len(ours)):
            pairs = []
            for events in (ours, theirs):
                part = slice(int(events.offsets[sample]), int(events.offsets[sample + 1]))
                pairs.append(set(zip(events.times[part].tolist(), events.units[part].tolist(), strict=True)))
            found += len(pairs[0] ^ pairs[1])
    return found


def changed(network: Network, what: str) -> Network:
    """Return the network with one mistake: a delay of a step more, a weight, or another reset."""
    if what == "reset":
        first = network.populations[0]
        neuron: Any = first.neuron
        other = replace(neuron, reset="zero" if neuron.reset == "subtract" else "subtract")
        return network.replace(populations=(replace(first, neuron=other), *network.populations[1:]))
    item = network.projections[0]
    weight, delay = np.array(item.weight), np.array(item.delay)
    strongest = np.unravel_index(int(np.argmax(weight)), weight.shape)
    if what == "delay":
        delay[strongest] += DT
    else:
        weight[strongest] *= -1
    first_one = Projection(item.source, item.target, weight, delay)
    return network.replace(projections=(first_one, *network.projections[1:]))


@pytest.mark.parametrize(
    ("size", "law"),
    [pytest.param(TOY, "lif", id="toy"), *(pytest.param(SHD, law, marks=pytest.mark.gpu) for law in LAWS)],
)
def test_no_spike_differs_from_the_clock_engine_and_mistakes_are_noticed(size: Size, law: str) -> None:
    network, events = make_network(size, law), make_events(size)
    with device_for(size.real):
        here = simulate(network, events, engine="cuda", n_steps=size.n_steps)
        clock = simulate(network, events, n_steps=size.n_steps)
        neuron_steps = sum(size.sizes[1:]) * size.n_steps * size.samples
        assert neuron_steps >= (1_000_000 if size.real else 0)
        for name in ("first", "second"):
            assert clock.spikes[name].times.shape[0] >= size.spikes, name
        assert differing(here, clock) == 0
        assert here.logits is not None
        assert np.array_equal(here.logits, clock.logits)
        for mistake in ("delay", "weight", "reset"):
            wrong = simulate(changed(network, mistake), events, engine="cuda", n_steps=size.n_steps)
            assert differing(wrong, clock) > 0, mistake


@pytest.mark.parametrize("size", SIZES)
def test_in_float32_differing_spikes_are_counted(size: Size, record_property: Any) -> None:
    network, events = make_network(size, "lif"), make_events(size)
    with device_for(size.real):
        here = simulate(network, events, engine="cuda", dtype="float32", n_steps=size.n_steps)
        again = simulate(network, events, engine="cuda", dtype="float32", n_steps=size.n_steps)
        assert differing(here, again) == 0  # the same bits again
        clock = simulate(network, events, n_steps=size.n_steps)
        spikes = sum(train.times.shape[0] for train in clock.spikes.values())
        found = differing(here, clock)
        record_property("differing_spikes", f"{found} of {spikes}")
        print(f"\nfloat32 on the device against float64: {found} of {spikes} spikes differ")
        assert found <= 0.02 * spikes


@pytest.mark.parametrize(
    ("scale", "n_steps"),
    [pytest.param(0.002, 60, id="toy"), pytest.param(0.2, 6000, id="device", marks=pytest.mark.gpu)],
)
def test_a_recurrent_network_with_noise_has_the_spikes_of_the_clock_engine(scale: float, n_steps: int) -> None:
    model = brunel(scale=scale)
    options: dict[str, Any] = {"n_steps": n_steps, "stimuli": model.stimuli, "seed": 3}
    with device_for(scale > 0.1):
        here = simulate(model.network, None, engine="cuda", **options)
        clock = simulate(model.network, None, **options)
        assert differing(here, clock) == 0
        spikes = {name: train.times.shape[0] for name, train in clock.spikes.items()}
        assert min(spikes.values()) >= (10_000 if scale > 0.1 else 1), spikes
        other = simulate(model.network, None, engine="cuda", **{**options, "seed": 4})
        assert differing(other, clock) > 0


def used_by_the_device() -> int:
    """Return the memory in use on the first device, bytes, as nvidia-smi tells."""
    words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0]) << 20


@pytest.mark.gpu
def test_the_whole_microcircuit_fits_into_eight_gibibytes() -> None:
    model = microcircuit()
    assert sum(item.n_synapses for item in model.network.projections) > 290_000_000
    with device_for(True):
        before = used_by_the_device()
        from snnsim.engines import ENGINES, grid_inputs
        from snnsim.engines.initial import initial_state

        runner = ENGINES["cuda"]().prepare(model.network, "float32", 1)
        stretch = replace(grid_inputs(model.network, None, 1000), stimuli=model.stimuli, seed=1)
        state = initial_state(model.network, model.initial, 1, "float32", "cuda")
        result = runner.run(stretch, state=state)
        used = used_by_the_device() - before
        rates = [train.times.shape[0] / train.n_units / 0.1 for train in result.spikes.values()]
        assert 1.0 < float(np.mean(rates)) < 20.0, rates
        assert used <= 8 * GIB, f"{used / GIB:.1f} GiB"
