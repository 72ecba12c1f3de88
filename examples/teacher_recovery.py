"""Recover the time constants of a network from its spikes alone.

A teacher of two layers has one membrane time constant a neuron, 5 to 40 ms. A student with the same weights starts at
15 ms everywhere and learns the 40 time constants by gradient descent on the distance between smoothed spike trains
(van Rossum 2001) of all neurons.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor

from snnsim.nn.neurons import LIF
from snnsim.nn.surrogates import SuperSpike

DT = 0.001
SIZES = (40, 20, 20)
STEPS, BATCH, RATE = 200, 16, 0.05


def smoothed(spikes: Tensor, tau: float = 0.005) -> Tensor:
    """Return spike trains after an exponential filter, the same shape (time, batch, unit)."""
    trace, out = torch.zeros_like(spikes[0]), []
    for step in spikes:
        trace = float(np.exp(-DT / tau)) * trace + step
        out.append(trace)
    return torch.stack(out)


def spikes_of(layers: list[LIF], weights: list[Tensor], x: Tensor) -> list[Tensor]:
    """Return the spikes of every layer."""
    out = []
    for layer, weight in zip(layers, weights, strict=True):
        x = layer(x @ weight.t())[0]
        out.append(x)
    return out


def recover(seed: int, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the time constants of teacher and student in seconds, shape (layer, unit) each."""
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    true = np.exp(rng.uniform(np.log(0.005), np.log(0.04), (2, SIZES[1])))
    weights = [
        0.25 * torch.randn(SIZES[1], SIZES[0], generator=generator) + 0.05,
        0.35 * torch.randn(SIZES[2], SIZES[1], generator=generator) + 0.1,
    ]
    teacher = [LIF(n, dt=DT, tau_mem=tau) for n, tau in zip(SIZES[1:], true, strict=True)]
    start = np.full(SIZES[1], 0.015)
    student = [LIF(n, dt=DT, tau_mem=start, learn="tau_mem", surrogate=SuperSpike(10.0)) for n in SIZES[1:]]
    optimiser = torch.optim.Adam([p for layer in student for p in layer.parameters()], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
    for _ in range(iterations):
        x = (torch.rand(STEPS, BATCH, SIZES[0], generator=generator) < RATE).float()
        with torch.no_grad():
            wanted = [smoothed(spikes) for spikes in spikes_of(teacher, weights, x)]
        found = [smoothed(spikes) for spikes in spikes_of(student, weights, x)]
        loss = torch.stack([((a - b) ** 2).mean() for a, b in zip(found, wanted, strict=True)]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for layer in student:
            layer.clamp_()
        schedule.step()
    return true, np.stack([layer.learned_values()["tau_mem"] for layer in student])


def main() -> None:
    """Print how far the recovered time constants lie from the true ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=400)
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        true, found = recover(seed, arguments.iterations)
        error = np.abs(found / true - 1)
        print(f"seed {seed}: start {np.abs(0.015 / true - 1).mean():.1%} off on average, after training ", end="")
        print(f"{error.mean():.2%} (largest of {error.size}: {error.max():.2%})")


if __name__ == "__main__":
    main()
