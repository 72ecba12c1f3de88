"""Running along with events as they come: the spikes of a run in one piece."""

import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from test_engine_clock import layered, spike_trains

from snnsim.engines import simulate
from snnsim.engines.stream import Stream, run_lines
from snnsim.errors import InputError
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import LIF
from snnsim.stimuli import Current, Poisson

DT = 0.001
COMMAND = "import sys; from snnsim.cli.main import run; sys.exit(run(sys.argv[1:]))"


def example():
    rng = np.random.default_rng(3)
    network = layered(rng, "CubaLIF", refractory=True)
    events = spike_trains(rng, 1, 6)
    step = np.floor(events.times / DT + 1e-6).astype(int)
    return network, events, step


def spikes_of(result):
    return {
        name: list(zip(np.rint(item.times / DT).astype(int).tolist(), item.units.tolist(), strict=True))
        for name, item in result.spikes.items()
    }


@pytest.mark.parametrize("piece", [1, 7, 50])
def test_pieces_have_the_spikes_of_the_whole(piece):
    network, events, step = example()
    noise = (Poisson("a", 300.0, 0.2),)
    whole = spikes_of(simulate(network, events, n_steps=50, stimuli=noise, seed=4))
    stream = Stream(network, stimuli=noise, seed=4)
    found = {name: [] for name in whole}
    while stream.step < 50:
        stop = min(stream.step + piece, 50)
        mine = (step >= stream.step) & (step < stop)
        for name, spikes in stream.advance(stop - stream.step, {"in": (step[mine], events.units[mine])}).items():
            found[name] += spikes
    assert found == whole


@pytest.mark.parametrize("chunk", [1, 4])
def test_lines_give_lines(chunk):
    network, events, step = example()
    lines = [f"{k * DT} {unit}" for k, unit in zip(step, events.units, strict=True)]
    told = list(run_lines(Stream(network), ["# comment", "", *lines, "0.05"], chunk))
    whole = spikes_of(simulate(network, events, n_steps=51))
    expected = {(f"{k * DT:.9g}", name, str(unit)) for name, spikes in whole.items() for k, unit in spikes}
    assert {tuple(line.split()) for line in told} == expected
    assert [float(line.split()[0]) for line in told] == sorted(float(line.split()[0]) for line in told)


def test_a_spike_is_told_as_soon_as_its_step_is_over():
    network = Network((Population("n", 1, LIF()),), (Projection("in", "n", [[2.0]]),), (Input("in", 1),), None, DT)
    seen = []

    def lines():
        yield "0.001 0"
        assert seen == []
        yield "0.002"
        seen.append("time went on")
        yield "0.003 0"

    told = run_lines(Stream(network), lines())
    assert next(told) == "0.001 n 0"
    assert seen == []
    assert list(told) == ["0.003 n 0"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["0.001 9"], "line 1: expected 'time unit' or 'time input unit' .* got '0.001 9'"),
        (["now 0"], "line 1: expected"),
        (["-1 0"], "line 1: expected"),
        (["0.001 eye 0"], r"one of the inputs \['in'\]"),
        (["0.005 0", "0.004 0"], "line 2: time 0.004 lies before an earlier line"),
        (["0.001 in 0 0"], "line 1: expected"),
    ],
)
def test_what_cannot_be_read_is_refused(lines, sentence):
    network, _, _ = example()
    with pytest.raises(InputError, match=sentence):
        list(run_lines(Stream(network), lines))


def test_what_does_not_fit_is_refused():
    network, _, _ = example()
    stream = Stream(network)
    for events, sentence in (
        ({"eye": ([0], [0])}, "expected inputs"),
        ({"in": ([5], [0])}, "expected steps 0 to 2, got 5"),
        ({"in": ([0], [6])}, "expected units 0 to 5, got 6"),
        ({"in": ([0, 1], [0])}, "2 steps and 1 units"),
    ):
        with pytest.raises(InputError, match=sentence):
            stream.advance(3, events)
    assert stream.step == 0
    with pytest.raises(InputError, match="a stream takes Poisson stimuli"):
        Stream(network, stimuli=Current("a", 1.0))


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    network = Network((Population("n", 1, LIF()),), (Projection("in", "n", [[2.0]]),), (Input("in", 1),), None, DT)
    return network.save(tmp_path / "one.snn.h5")


def test_the_command_reads_standard_input(network_file):
    command = [sys.executable, "-c", COMMAND, "simulate", str(network_file), "--stream", "-"]
    done = subprocess.run(command, input="0.001 0\n0.004 0\n", capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0.001 n 0\n0.004 n 0\n"
    wrong = subprocess.run(command, input="0.001 7\n", capture_output=True, text=True, timeout=200)
    assert wrong.returncode != 0
    assert "line 1: expected" in wrong.stderr


def test_the_command_listens_on_loopback(network_file):
    command = [sys.executable, "-c", COMMAND, "simulate", str(network_file), "--stream", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        killer = threading.Timer(200, process.kill)
        killer.start()
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as channel:
            channel.write("0.002 0\n0.003\n")
            channel.flush()
            assert channel.readline() == "0.002 n 0\n"
        assert process.wait(100) == 0
        killer.cancel()
