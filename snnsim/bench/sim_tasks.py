"""What is simulated: networks of the literature, stretch by stretch of a run that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from snnsim.errors import InputError

__all__ = ["SIM_TASKS", "SimTask", "choose_sim_tasks"]


@dataclass(frozen=True)
class SimTask:
    """A simulation that every side does at the same sizes; :mod:`snnsim.bench.networks` makes its network.

    Attributes:
        name: Name on the command line.
        summary: One line.
        net: ``cuba``, ``brunel`` or ``stream``.
        sizes: Neurons and synapses a neuron receives; of a stream the units of every layer, inputs first.
        n_steps: Steps of a stretch.
        turn: Stretches of a turn, the same on every side, so that all simulate the same span; 0: as many as fill a
            turn, for stretches that each start anew.
        exact: Whether both sides must have equal spike counts in the first stretch; otherwise their mean rates must
            agree.
        dtype: Of our side.
        engine: Of our side.
        steps: Delay of ``cuba`` and ``brunel``, in steps.
        g: Inhibition over excitation of ``brunel``; the next ones are also its, see there.
        own: Whether synapses have weights and delays of their own.
        noise: Whether neurons get Poisson events.
        drive: Where the constant drive brings the membrane, mV.
        tau: Time constant of the membrane, ms.
        strength: Factor of the recurrent weights.
        lowest: Lowest potential at the start, mV.
        expected: Published spike counts of the first stretch, one a population; empty: none.
        peers: Sides to compare with, files in ``peers/``.
    """

    name: str
    summary: str
    net: str
    sizes: tuple[int, ...]
    n_steps: int
    turn: int
    exact: bool
    dtype: str = "float64"
    engine: str = "clock"
    steps: int = 15
    g: float = 5.0
    own: bool = False
    noise: bool = False
    drive: float = 0.0
    tau: float = 20.0
    strength: float = 1.0
    lowest: float = 0.0
    expected: tuple[int, ...] = ()
    peers: tuple[str, ...] = ("nest", "brian2")

    @property
    def dt(self) -> float:
        """Seconds a step."""
        return 1e-3 if self.net == "stream" else 1e-4

    @property
    def n_neurons(self) -> int:
        """Neurons, inputs not counted."""
        return sum(self.sizes[1:]) if self.net == "stream" else self.sizes[0]

    def to_json(self, threads: int) -> dict[str, Any]:
        """Return what a worker wants: the fields, the threads, and a small task of the same kind to warm up with."""
        made = {**asdict(self), "what": "simulate", "threads": threads}
        sizes = tuple(min(size, 30) for size in self.sizes) if self.net == "stream" else (250, 25)
        return {**made, "small": {**made, "sizes": sizes, "n_steps": 40, "turn": 1, "small": {}}}

    def unavailable(self) -> str:
        """Return why our side cannot do this task, or an empty string."""
        from snnsim.engines import ENGINES

        if self.engine in ENGINES:
            return ""
        return f"there is no engine {self.engine!r} here, only {' and '.join(ENGINES)}"


_CUBA = SimTask("", "", "cuba", (4000, 80), 2000, 5, True, steps=1)
_BRUNEL = SimTask("", "", "brunel", (12500, 1250), 500, 2, False, noise=True)

SIM_TASKS: dict[str, SimTask] = {
    task.name: task
    for task in (
        replace(_CUBA, name="cuba", summary="Vogels-Abbott network with currents, float64"),
        replace(_CUBA, name="cuba-single", summary="the same, ours in float32", dtype="float32", exact=False),
        replace(
            _CUBA,
            name="cuba-exact",
            summary="the same with spikes at their exact times, delay 1.5 ms",
            engine="event",
            steps=15,
            peers=("nest",),
        ),
        replace(_BRUNEL, name="brunel", summary="Brunel network with Poisson noise, ours in float32", dtype="float32"),
        replace(_BRUNEL, name="brunel-double", summary="the same in float64"),
        replace(
            _BRUNEL,
            name="brunel-constant",
            summary="Brunel network under constant drive, float64",
            exact=True,
            noise=False,
            drive=24.0,
        ),
        replace(
            _BRUNEL,
            name="brunel-own",
            summary="Brunel network with a weight and a delay of its own a synapse, ours in float32",
            dtype="float32",
            own=True,
        ),
        SimTask(
            "shd-stream",
            "one sample through a dense network with a delay a synapse, ours in float32",
            "stream",
            (700, 256, 256, 20),
            1000,
            0,
            True,
            dtype="float32",
            expected=(5191, 3995, 1199),
        ),
    )
}


def choose_sim_tasks(names: Sequence[str]) -> list[SimTask]:
    """Return simulations by name, or all.

    Raises:
        InputError: There is no such task.
    """
    for name in names:
        if name not in SIM_TASKS:
            raise InputError(f"bench: expected one of {', '.join(SIM_TASKS)}, got {name!r}")
    return [SIM_TASKS[name] for name in names] or list(SIM_TASKS.values())
