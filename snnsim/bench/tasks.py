"""What is measured: networks and sizes, who can do them, and the least work our own formulation needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from snnsim.errors import InputError

__all__ = ["TASKS", "Task", "choose_tasks"]


@dataclass(frozen=True)
class Task:
    """One piece of work that every side does at the same sizes.

    Attributes:
        name: Name on the command line.
        summary: One line.
        kind: ``delay`` (the delay paper's network), ``plain`` (LIF layers), ``recurrent``, ``conv`` (on feature maps)
            or ``layer`` (one Linear and LIF, gradients of the weights).
        what: ``train`` (forward, loss, backward, update), ``evaluate`` or ``epoch`` (all training samples of a data set
            once, from the file's events to the last update).
        sizes: Units of every layer, inputs first; of an epoch the hidden ones, the data give the rest.
        n_steps: Time steps; delay networks run longer by the steps that late spikes need.
        batch: Samples.
        rate: Mean events a channel and step (Poisson).
        n_delays: Delay slots of a synapse.
        sigma: Width of the delay taps in steps.
        taps: Taps a synapse.
        learning: Learning rule: ``bptt``, ``sltt``, ``sltt-k`` (a tenth of the steps), ``sltt-1`` (one step), ``ottt``.
        loss: ``scores`` (cross-entropy of the readout's mean membrane) or ``steps`` (of its membrane, mean over steps);
            rules other than ``bptt`` want the second.
        checkpoint_steps: Steps of a stretch that our side computes again in the backward pass; 0 keeps everything.
        peers: Sides to compare with, files in ``peers/``.
        preset: Preset of a convolutional network.
        maps: Its input: channels, height and width.
        data: Training file in the SHD layout of an epoch.
        samples: First samples of the file that make the epoch; 0 means all.
    """

    name: str
    summary: str
    kind: str
    what: str
    sizes: tuple[int, ...]
    n_steps: int
    batch: int
    rate: float
    n_delays: int = 0
    sigma: float = 0.0
    taps: int = 1
    learning: str = "bptt"
    loss: str = "scores"
    checkpoint_steps: int = 0
    peers: tuple[str, ...] = ("spikingjelly", "snntorch", "norse", "spyx")
    preset: str = ""
    maps: tuple[int, ...] = ()
    data: str = ""
    samples: int = 0

    def to_json(self, threads: int) -> dict[str, Any]:
        """Return what a worker wants: the fields, the threads, and a small task of the same kind to warm up with."""
        made = {**asdict(self), "threads": threads}
        return {**made, "small": {**made, "n_steps": 8, "batch": 4, "samples": 8, "small": {}}}

    def least_operations(self) -> float:
        """Return the multiplications and additions that our formulation cannot do without: its dense products.

        Where the input is sparse its product and the weights' gradient count by its events; the spikes of hidden layers
        without delays, few as they are in these tasks, do not count at all. Of an epoch and of feature maps nothing is
        said: 0.
        """
        if self.what == "epoch" or self.kind == "conv":
            return 0.0
        steps, total = self.n_steps, 0.0
        if self.kind == "delay":
            steps += 3 * ((self.n_delays - 1) // 2)
        for index, (n_in, n_out) in enumerate(pairwise(self.sizes)):
            dense = 2.0 * steps * self.batch * n_in * n_out * self.taps
            if self.what == "evaluate":
                total += dense
            elif self.kind == "delay":
                frequencies = (steps + self.n_delays - 1) // 2 + 1
                total += (2 if index == 0 else 3) * 6.0 * frequencies * self.batch * n_in * n_out
            else:
                total += 2 * min(1.0, self.rate) * dense if index == 0 else dense
        if self.kind == "recurrent":
            total += sum(2.0 * steps * self.batch * n * n for n in self.sizes[1:-1])
        return total


_DELAY = Task("", "", "delay", "train", (140, 256, 256, 20), 100, 256, 0.35, 25, 12.0, peers=("dcls",))
_PLAIN = Task("", "", "plain", "train", (700, 256, 256, 20), 100, 128, 0.02)

_DEEP = Task(
    *("", "", "plain", "train", (700, 512, 512, 512, 20), 200, 128, 0.02),
    learning="sltt",
    loss="steps",
    peers=("ours:sltt-k", "ours:sltt-1", "ours:bptt", "spikingjelly", "spikingjelly:bptt", "spikingjelly:ottt"),
)

_CONV = Task(
    *("", "", "conv", "train", (4608, 10), 10, 16, 0.1),
    learning="sltt",
    loss="steps",
    peers=("ours:bptt",),
    preset="vgg11",
    maps=(2, 48, 48),
)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        replace(_DELAY, name="shd-delay", summary="delay paper's SHD network, wide taps (sigma 12), training step"),
        replace(_DELAY, name="shd-delay-late", sigma=0.23, summary="the same after sigma has shrunk to 0.23"),
        replace(
            _DELAY,
            name="ssc-delay",
            summary="SSC-size delay network, 3 x 512, 31 slots, training step",
            sizes=(140, 512, 512, 512, 35),
            batch=128,
            n_delays=31,
            sigma=15.0,
        ),
        replace(_PLAIN, name="plain", summary="700-256-256-20, 100 steps, training step"),
        replace(_PLAIN, name="plain-long", summary="the same over 1000 steps", n_steps=1000),
        replace(
            _PLAIN,
            name="plain-lean",
            summary="the same over 1000 steps, ours with checkpoints every 50 steps",
            n_steps=1000,
            checkpoint_steps=50,
        ),
        replace(_DEEP, name="sltt", summary="700-512-512-512-20 with SLTT, 200 steps, training step"),
        replace(_DEEP, name="sltt-long", summary="the same over 1000 steps", n_steps=1000),
        replace(_CONV, name="vgg11", summary="spiking VGG-11 on 48 x 48 events with SLTT, training step"),
        replace(_CONV, name="vgg11-long", summary="the same over 20 steps", n_steps=20),
        replace(
            _CONV,
            name="resnet18",
            summary="pre-activation spiking ResNet-18 on 32 x 32 images with SLTT, training step",
            sizes=(3072, 10),
            n_steps=6,
            preset="resnet18",
            maps=(3, 32, 32),
        ),
        replace(
            _PLAIN,
            name="recurrent",
            summary="700-1024-20 with recurrence, training step",
            kind="recurrent",
            sizes=(700, 1024, 20),
        ),
        replace(
            _PLAIN,
            name="layer",
            summary="one Linear and LIF of 512, 500 steps, forward and backward",
            kind="layer",
            sizes=(512, 512),
            n_steps=500,
            batch=16,
            rate=0.1,
        ),
        replace(
            _DELAY, name="shd-delay-eval", sigma=0.23, what="evaluate", summary="SHD network, evaluation of a batch"
        ),
        replace(
            _DELAY,
            name="shd-delay-epoch",
            what="epoch",
            sizes=(256, 256),
            n_steps=0,
            rate=0.0,
            summary="SHD network, one epoch from events to updates",
        ),
    )
}


def choose_tasks(names: Sequence[str], what: str) -> list[Task]:
    """Return tasks by name, or all of one kind of work.

    Raises:
        InputError: There is no such task.
    """
    known = {name: task for name, task in TASKS.items() if task.what == what}
    for name in names:
        if name not in known:
            raise InputError(f"bench: expected one of {', '.join(known)}, got {name!r}")
    return [known[name] for name in names] or list(known.values())
