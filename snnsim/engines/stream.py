"""Running along with events as they come: one sample, step by step, on the clock engine.

>>> import numpy as np
>>> from snnsim.network import Input, Network, Population, Projection
>>> from snnsim.neurons import LIF
>>> network = Network((Population("n", 1, LIF()),), (Projection("in", "n", [[2.0]]),), (Input("in", 1),), None, 0.001)
>>> stream = Stream(network)
>>> stream.advance(3, {"in": ([1], [0])})
{'n': [(1, 0)]}
>>> stream.step
3
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TextIO

import numpy as np
import numpy.typing as npt

from snnsim.engines import Dtype, Inputs, State, grid_inputs
from snnsim.engines.clock import ClockEngine
from snnsim.engines.initial import initial_state
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.grid import time_to_step
from snnsim.network import Network
from snnsim.network_checks import check_integer
from snnsim.stimuli import Stimulus, check_stimuli

__all__ = ["Stream", "run_lines", "serve"]

Spikes = dict[str, list[tuple[int, int]]]


class Stream:
    """One sample of a network that goes on as long as events come. The spikes are those of a run in one piece.

    Args:
        network: What runs.
        dtype: ``"float64"`` or ``"float32"``.
        stimuli: Act from step 0 on; times of currents count from there.
        seed: Of random stimuli.
        initial: As in :func:`snnsim.engines.simulate`.
    """

    def __init__(
        self,
        network: Network,
        *,
        dtype: Dtype = "float64",
        stimuli: Iterable[Stimulus] | Stimulus = (),
        seed: int = 0,
        initial: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        self.network = network
        self._runner = ClockEngine().prepare(network, dtype, 1)
        self._state: State | None = initial_state(network, initial, 1, dtype, "clock") if initial else None
        self._step = 0
        empty = {item.name: Events.from_lists([[]], [[]], item.size, duration=0.0) for item in network.inputs}
        self._nothing = replace(
            grid_inputs(network, empty, 0),
            stimuli=check_stimuli(network, stimuli),
            seed=check_integer(seed, "seed", 0, 2**32 - 1),
        )
        if any(hasattr(item, "amplitude") for item in self._nothing.stimuli):
            raise InputError("stimuli: a stream takes Poisson stimuli; currents begin and end at times of a run")

    @property
    def step(self) -> int:
        """Steps done."""
        return self._step

    def advance(self, n_steps: int, events: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] | None = None) -> Spikes:
        """Do some steps and return the spikes of every population as (step, unit), steps counted from the first one.

        Args:
            n_steps: How many.
            events: By input, steps and units of the events in them, in any order; several events of a unit in a step
                count as often.

        Raises:
            InputError: An input is unknown, or an event lies outside these steps or units.
        """
        n = check_integer(n_steps, "n_steps", 0)
        result = self._runner.run(self._inputs(n, events or {}), state=self._state)
        first, self._state, self._step = self._step, result.state, self._step + n
        spikes = {}
        for name, found in result.spikes.items():
            steps = first + np.rint(found.times / self.network.dt).astype(np.int64)
            spikes[name] = list(zip(steps.tolist(), found.units.tolist(), strict=True))
        return spikes

    def _inputs(self, n: int, events: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]) -> Inputs:
        unknown = set(events) - {item.name for item in self.network.inputs}
        if unknown:
            raise InputError(f"events: expected inputs {[item.name for item in self.network.inputs]}, got {unknown}")
        columns: tuple[list[npt.NDArray[np.int64]], ...] = ([], [], [], [])
        for item in self.network.inputs:
            steps, units = (np.asarray(part, np.int64).reshape(-1) for part in events.get(item.name, ((), ())))
            if steps.shape != units.shape:
                raise InputError(f"events: input {item.name!r}: {steps.size} steps and {units.size} units")
            if units.size and (units.min() < 0 or units.max() >= item.size):
                raise InputError(f"events: input {item.name!r}: expected units 0 to {item.size - 1}, got {units.max()}")
            if steps.size and (steps.min() < self._step or steps.max() >= self._step + n):
                raise InputError(
                    f"events: input {item.name!r}: expected steps {self._step} to {self._step + n - 1}, got "
                    f"{steps.min()} to {steps.max()}"
                )
            key, count = np.unique((steps - self._step) * item.size + units, return_counts=True)
            for column, part in zip(
                columns, (np.array([0, key.size]), key // item.size, key % item.size, count), strict=True
            ):
                column.append(part.astype(np.int64))
        start, step, unit, counts = (tuple(column) for column in columns)
        return replace(self._nothing, start=start, step=step, unit=unit, count=counts, n_steps=np.array([n], np.int64))


def run_lines(stream: Stream, lines: Iterable[str], chunk: int = 1) -> Iterator[str]:
    """Run along with lines of text and yield a line a spike, ``time population unit``, times in seconds.

    A line is ``time unit`` or ``time input unit``, times never falling; ``time`` alone says that nothing before it is
    still to come. Steps are done, ``chunk`` at a time, as soon as no event of theirs can come any more; what is left
    at the end of the lines is done then, up to the last event.

    Args:
        stream: A stream that stands at its beginning.
        lines: Without or with their ends; empty ones and those that begin with ``#`` say nothing.
        chunk: Steps done together.

    Raises:
        InputError: A line cannot be read, or its time lies before one that is done.
    """
    network = stream.network
    waiting: dict[str, tuple[list[int], list[int]]] = {item.name: ([], []) for item in network.inputs}
    last = -1

    def advance(stop: int) -> Iterator[str]:
        nonlocal waiting
        events = {}
        later: dict[str, tuple[list[int], list[int]]] = {}
        for name, (steps, units) in waiting.items():
            due = [place for place, step in enumerate(steps) if step < stop]
            rest = [place for place, step in enumerate(steps) if step >= stop]
            events[name] = ([steps[place] for place in due], [units[place] for place in due])
            later[name] = ([steps[place] for place in rest], [units[place] for place in rest])
        waiting = later
        spikes = stream.advance(stop - stream.step, events)
        told = [(step, name, unit) for name, found in spikes.items() for step, unit in found]
        for step, name, unit in sorted(told, key=lambda item: item[0]):
            yield f"{step * network.dt:.9g} {name} {unit}"

    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        step, name, unit = _read(network, words, number)
        if step < max(last, stream.step):
            raise InputError(f"line {number}: time {words[0]} lies before an earlier line; times must never fall")
        last = step
        ready = stream.step + (step - stream.step) // chunk * chunk
        if ready > stream.step:
            yield from advance(ready)
        if unit is not None:
            waiting[name][0].append(step)
            waiting[name][1].append(unit)
    if last >= stream.step:
        yield from advance(last + 1)


def _read(network: Network, words: list[str], number: int) -> tuple[int, str, int | None]:
    """Return step, input and unit of a line."""
    names = [item.name for item in network.inputs]
    try:
        time = float(words[0])
        if not np.isfinite(time) or time < 0:
            raise ValueError
        step = int(time_to_step(time, network.dt))
        if len(words) == 1:
            return step, "", None
        name = names[0] if len(words) == 2 and len(names) == 1 else words[1]
        unit = int(words[-1])
        if len(words) > 3 or name not in names or not 0 <= unit < network.input(name).size:
            raise ValueError
    except ValueError:
        raise InputError(
            f"line {number}: expected 'time unit' or 'time input unit' with seconds, one of the inputs {names} and "
            f"one of its units, got {' '.join(words)[:60]!r}"
        ) from None
    return step, name, unit


def serve(stream: Stream, port: int, out: TextIO, chunk: int = 1) -> None:
    """Run along with one connection on loopback: lines come in, spikes go back on it and to ``out``.

    Args:
        stream: A stream that stands at its beginning.
        port: Loopback port to listen on; 0 takes a free one, which is written to ``out``.
        out: Told the port, and every spike.
        chunk: Steps done together.
    """
    import socket

    with socket.create_server(("127.0.0.1", port)) as server:
        print(f"# listening on 127.0.0.1:{server.getsockname()[1]}", file=out, flush=True)
        connection, _ = server.accept()
        with connection, connection.makefile("rw", encoding="utf-8", newline="\n") as channel:
            for line in run_lines(stream, iter(channel.readline, ""), chunk):
                print(line, file=channel, flush=True)
                print(line, file=out, flush=True)
