"""What `snnsim bench cuda` measures: work at fixed sizes, and who else can do it.

``linear-lif`` is the Open Neuromorphic benchmark of SNN libraries (Lenz et al. 2023, updated 2024): one Linear with
bias and one layer of LIF neurons of the same size, batch 16, 500 steps, normal input, the sum of the spikes as loss,
forward and backward timed apart; the gradient of the input is not asked for. There every library has its own default
decay; here all have the same (``beta = 0.9``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from snnsim.errors import InputError

__all__ = ["CUDA_TASKS", "HOW_TO_INSTALL", "SIDES", "CudaTask", "choose_cuda_tasks", "groups"]

SIDES: dict[str, str] = {
    "ours": "ours_cuda",
    "dcls": "dcls",
    "spikingjelly": "on_device",
    "snntorch": "on_device",
    "norse": "on_device",
    "torch": "on_device",
    "spyx": "spyx_device",
}
"""File in ``peers/`` of every side, by the part of its name before the colon."""

HOW_TO_INSTALL = {
    "dcls": "pip install dcls spikingjelly",
    "spikingjelly": "pip install spikingjelly",
    "spikingjelly:cupy": (
        "SpikingJelly 2 has no CuPy kernels; give a Python with spikingjelly==0.0.0.0.14 and cupy: "
        "--python spikingjelly:cupy=PATH"
    ),
    "snntorch": "pip install snntorch",
    "norse": "pip install norse",
    "spyx": "pip install spyx 'jax[cuda13]'",
}

LIBRARIES = (
    "spikingjelly",
    "spikingjelly:torch",
    "spikingjelly:cupy",
    "snntorch",
    "norse",
    "spyx",
    "torch:compile",
)


@dataclass(frozen=True)
class CudaTask:
    """One piece of work that every side does at the same sizes.

    Attributes:
        name: Name on the command line.
        group: Name of its group, which chooses all of it.
        summary: One line.
        kind: ``ceilings``, ``delay`` (the delay paper's network), ``plain`` (LIF layers and a readout), ``linear`` (one
            Linear and LIF), ``kernel`` (LIF neurons alone), ``sim`` or ``precision``.
        what: ``train`` or ``evaluate``.
        sizes: Units of every layer, inputs first; of ``kernel`` the neurons.
        n_steps: Time steps; of a simulation those of a stretch.
        batch: Samples.
        rate: Mean events a channel and step (Poisson); 0 is normal input.
        n_delays: Delay slots of a synapse.
        sigma: Width of the delay taps in steps.
        taps: Taps a synapse.
        model: Function of :mod:`snnsim.models`.
        scale: Its scale.
        peers: Sides to compare with; after the colon which of a library's own ways.
    """

    name: str
    group: str
    summary: str
    kind: str
    what: str = "train"
    sizes: tuple[int, ...] = ()
    n_steps: int = 0
    batch: int = 1
    rate: float = 0.0
    n_delays: int = 0
    sigma: float = 0.0
    taps: int = 1
    model: str = ""
    scale: float = 1.0
    peers: tuple[str, ...] = ()

    def to_json(self, device: str, threads: int) -> dict[str, Any]:
        """Return what a side wants: the fields, the device, and what sides of other comparisons are told."""
        return {**asdict(self), "device": device, "threads": threads, "learning": "bptt", "loss": "scores"}

    def quick(self, simulated: bool) -> CudaTask:
        """Return the same work at a small size, in the simulator at that of a toy."""
        widest, steps, batch = (4, 4, 2) if simulated else (512, 100, 32)
        scales = {"brunel": 0.002, "microcircuit": 0.0002} if simulated else {"brunel": 0.1, "microcircuit": 0.05}
        return replace(
            self,
            sizes=tuple(min(size, widest) for size in self.sizes),
            n_steps=min(self.n_steps, steps),
            batch=min(self.batch, batch),
            n_delays=min(self.n_delays, 5),
            sigma=min(self.sigma, 2.0),
            scale=scales.get(self.model, self.scale),
        )


_SHD = CudaTask(
    "shd",
    "shd",
    "delay paper's SHD network, wide taps, training step",
    "delay",
    sizes=(140, 256, 256, 20),
    n_steps=100,
    batch=256,
    rate=0.35,
    n_delays=25,
    sigma=12.0,
    peers=("dcls",),
)
_SSC = replace(
    _SHD,
    name="ssc",
    group="ssc",
    summary="SSC-size delay network, three hidden layers, training step",
    sizes=(140, 512, 512, 512, 35),
    batch=128,
    n_delays=31,
    sigma=15.0,
)
_LIF = CudaTask(
    "lif",
    "lif",
    "network of LIF neurons and a readout, training step",
    "plain",
    sizes=(700, 256, 256, 20),
    n_steps=100,
    batch=128,
    rate=0.02,
    peers=LIBRARIES,
)
_LINEAR = CudaTask(
    "linear-lif",
    "linear-lif",
    "one Linear and LIF, forward and backward apart",
    "linear",
    sizes=(512, 512),
    n_steps=500,
    batch=16,
    peers=LIBRARIES,
)
_SIM = CudaTask("sim", "sim", "", "sim", "evaluate", n_steps=1000)


def _linear(size: int) -> CudaTask:
    return replace(_LINEAR, name=f"linear-lif-{size}", sizes=(size, size))


def _kernel(size: int) -> CudaTask:
    return replace(
        _LINEAR,
        name=f"lif-kernel-{size}",
        group="lif-kernel",
        summary="LIF neurons alone, forward and backward apart: memory traffic",
        kind="kernel",
        sizes=(size,),
        peers=(),
    )


def _lif(steps: int) -> CudaTask:
    return replace(_LIF, name=f"lif-{steps}", n_steps=steps)


CUDA_TASKS: dict[str, CudaTask] = {
    task.name: task
    for task in (
        CudaTask("ceilings", "ceilings", "what the device can do at best: a large copy, large products", "ceilings"),
        replace(_SHD, name="shd-train"),
        replace(_SHD, name="shd-eval", what="evaluate", summary="SHD network, evaluation of a batch", sigma=0.23),
        _lif(100),
        _lif(1000),
        _kernel(4096),
        _linear(512),
        _linear(4096),
        replace(
            _SHD,
            name="precision",
            group="precision",
            summary="outputs and gradients of the SHD network, and of one without delays, against float64",
            kind="precision",
            peers=(),
        ),
        replace(_SIM, name="brunel", model="brunel", summary="Brunel, 12 500 neurons, delta synapses, Poisson drive"),
        replace(_SSC, name="ssc-train"),
        replace(_SSC, name="ssc-eval", what="evaluate", summary="SSC-size network, evaluation of a batch", sigma=0.23),
        _linear(1024),
        _linear(2048),
        _linear(8192),
        _linear(16384),
        _kernel(16384),
        _lif(4000),
        replace(
            _SIM,
            name="microcircuit",
            model="microcircuit",
            summary="cortical microcircuit, 77 169 neurons, 0.3 billion synapses",
        ),
    )
}
"""In the order in which they are measured: what matters most comes first, in case time runs out."""


def groups() -> list[str]:
    """Return the names of the groups."""
    return list(dict.fromkeys(task.group for task in CUDA_TASKS.values()))


def choose_cuda_tasks(names: Sequence[str] | None) -> list[CudaTask]:
    """Return tasks by name or by group, or all; what the device can do at best is always measured first.

    Raises:
        InputError: There is no such task.
    """
    chosen: Iterable[str] = names or CUDA_TASKS
    for name in chosen:
        if name not in CUDA_TASKS and name not in groups():
            raise InputError(
                f"bench cuda: expected some of {', '.join(dict.fromkeys([*groups(), *CUDA_TASKS]))}, got {name!r}"
            )
    wanted = {"ceilings", *chosen}
    return [task for task in CUDA_TASKS.values() if task.name in wanted or task.group in wanted]
