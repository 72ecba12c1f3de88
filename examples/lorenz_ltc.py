"""Predict the Lorenz system one sample ahead from x alone, sampled irregularly: liquid units beside leaky-tanh units.

python examples/lorenz_ltc.py [seed]

Both layers have about the same number of parameters and get the same samples and the same durations; a leaky-tanh unit
forgets with exp(-elapsed / tau). The numbers are a report, not a claim: nothing was tuned.
"""

import sys

import numpy as np
import torch
from torch import Tensor, nn

from snnsim.nn.liquid import LTC

PERIOD, KEPT, UNITS, STEPS, UPDATES = 0.05, 0.7, 16, 32, 200


def lorenz(n_samples: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return x / 20 at irregular times, (time,), and the seconds to the next of them, (time,)."""
    state, found = rng.normal([1.0, 1.0, 20.0], 1.0), []

    def slopes(s: np.ndarray) -> np.ndarray:
        return np.array([10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]])

    parts = 10
    for _ in range(n_samples + 100):
        for _ in range(parts):  # classical Runge-Kutta
            h = PERIOD / parts
            a = slopes(state)
            b = slopes(state + h / 2 * a)
            c = slopes(state + h / 2 * b)
            state = state + h / 6 * (a + 2 * b + 2 * c + slopes(state + h * c))
        found.append(state[0] / 20)
    kept = np.flatnonzero(rng.random(n_samples) < KEPT)
    x = np.array(found[100:])[kept]
    return torch.tensor(x[:-1], dtype=torch.float32), torch.tensor(np.diff(kept) * PERIOD, dtype=torch.float32)


class LeakyTanh(nn.Module):
    """``v <- decay v + (1 - decay) tanh(W v + U x + b)`` with ``decay = exp(-elapsed / tau)``."""

    def __init__(self, n_in: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.recurrent, self.input = nn.Linear(size, size), nn.Linear(n_in, size, bias=False)
        self.log_tau = nn.Parameter(torch.full((size,), np.log(2 * PERIOD)))

    def forward(self, x: Tensor, state: None, elapsed: Tensor) -> tuple[Tensor, Tensor]:
        v, trace = x.new_zeros(x.shape[1], self.size), []
        for now, seconds in zip(self.input(x), elapsed, strict=True):
            decay = torch.exp(-seconds.unsqueeze(1) / self.log_tau.exp())
            v = decay * v + (1 - decay) * torch.tanh(self.recurrent(v) + now)
            trace.append(v)
        return torch.stack(trace), v


class Predictor(nn.Module):
    """Units and a linear readout of the change of x until the next sample."""

    def __init__(self, units: nn.Module, size: int) -> None:
        super().__init__()
        self.units, self.readout = units, nn.Linear(size, 1)

    def forward(self, x: Tensor, elapsed: Tensor) -> Tensor:
        trace, _ = self.units(x.unsqueeze(2), None, elapsed)
        return x + self.readout(trace).squeeze(2)


def pieces(x: Tensor, elapsed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, durations and targets, (time, piece)."""
    n = (len(x) - 1) // STEPS
    cut = [part[: n * STEPS].reshape(n, STEPS).t().contiguous() for part in (x[:-1], elapsed[:-1], x[1:])]
    return cut[0], cut[1], cut[2]


def main(seed: int = 0) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    train, test = pieces(*lorenz(8000, rng)), pieces(*lorenz(3000, rng))
    liquid = Predictor(LTC(1, UNITS, period=PERIOD, substeps=3), UNITS)
    budget = sum(p.numel() for p in liquid.parameters())
    size = next(n for n in range(UNITS, 200) if n * n + 5 * n + 1 >= budget)
    tanh = Predictor(LeakyTanh(1, size), size)
    print(f"guess 'as now': test MSE {float((test[0] - test[2]).square().mean()):.5f}")
    for name, model, lr in (("liquid", liquid, 0.01), ("leaky tanh", tanh, 0.003)):
        optimiser = torch.optim.Adam(model.parameters(), lr)
        for _ in range(UPDATES):
            chosen = torch.from_numpy(rng.choice(train[0].shape[1], 16, replace=False))
            x, elapsed, target = (part[:, chosen] for part in train)
            optimiser.zero_grad()
            (model(x, elapsed) - target).square().mean().backward()
            optimiser.step()
            if isinstance(model.units, LTC):
                model.units.clamp_()
        with torch.no_grad():
            error = float((model(test[0], test[1]) - test[2]).square().mean())
        print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, test MSE {error:.5f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
