"""Prune an untrained pool in several ways and measure what it still remembers.

A pool of 200 neurons, heterogeneous or not, gets a new random number every 10 ms. A ridge readout of its filtered
spikes reconstructs earlier numbers; the sum of the squared correlations over the lags is the memory capacity (Jaeger
2001). Every pruning keeps the same share of synapses and neurons; the readout is fitted anew each time. The number of
pools may be given: ``python examples/lyapunov_pruning.py 5``.
"""

import sys

import numpy as np

from snnsim.engines import simulate
from snnsim.events import Events
from snnsim.kernels.philox import Stream, uniform
from snnsim.network import Network
from snnsim.pruning.lnp import STEPS, prune_lnp
from snnsim.pruning.pools import PoolPlan, make_pool
from snnsim.pruning.timescales import TimescaleSearch

CHANNELS, SYMBOL, LAGS = 20, 10, 12
SYMBOLS, TRAINED, DISCARD = 2400, 1600, 100


def stream(seed: int) -> tuple[np.ndarray, Events]:
    """Numbers from 0 to 1, and the events that carry them: half of the channels by x, half by 1 - x."""
    x = uniform(seed, Stream.TOY, 0, 0, np.arange(SYMBOLS))
    share = uniform(seed, Stream.TOY, 1, np.arange(SYMBOLS * SYMBOL)[:, None], np.arange(CHANNELS))
    slow = np.repeat(x, SYMBOL)[:, None]
    chance = 0.25 * np.where(np.arange(CHANNELS) < CHANNELS // 2, slow, 1 - slow)
    step, unit = np.nonzero(share < chance)
    duration = SYMBOLS * SYMBOL * 0.001
    return x, Events.from_lists([step * 0.001], [unit], n_units=CHANNELS, duration=duration)


def memory(network: Network, x: np.ndarray, events: Events) -> tuple[float, float]:
    """Memory capacity on symbols the readout was not fitted to, and synaptic operations a step."""
    result = simulate(network, events)
    spikes = result.spikes["pool"]
    n = network.population("pool").size
    counts = np.zeros((SYMBOLS * SYMBOL, n))
    counts[np.rint(spikes.times / 0.001).astype(int), spikes.units] = 1.0
    trace, features = np.zeros(n), np.empty((SYMBOLS, n))
    for step, row in enumerate(counts):
        trace = np.exp(-1 / SYMBOL) * trace + row
        if step % SYMBOL == SYMBOL - 1:
            features[step // SYMBOL] = trace
    features = np.column_stack((features, np.ones(SYMBOLS)))
    fit, test = slice(DISCARD, TRAINED), slice(TRAINED, SYMBOLS)
    gram = features[fit].T @ features[fit] + 10.0 * np.eye(n + 1)
    capacity = 0.0
    for lag in range(LAGS):
        wanted = np.roll(x, lag)
        readout = np.linalg.solve(gram, features[fit].T @ wanted[fit])
        capacity += float(np.corrcoef(features[test] @ readout, wanted[test])[0, 1] ** 2)
    return capacity, result.operations.synaptic_operations / (SYMBOLS * SYMBOL)


def main(n_pools: int) -> None:
    fast = STEPS[:3]
    ways: dict[str, dict[str, object]] = {
        "noise": {"score": "noise", "steps": fast},
        "lyapunov_noise": {"score": "lyapunov_noise", "steps": fast},
        "magnitude": {"score": "magnitude", "steps": fast},
        "random": {"score": "random", "steps": fast},
        "noise, step I alone": {"score": "noise", "steps": STEPS[:1]},
        "noise, steps I and II": {"score": "noise", "steps": STEPS[:2]},
        "noise, all four": {"score": "noise", "steps": STEPS, "timescales": TimescaleSearch(iterations=10)},
    }
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    for seed in range(n_pools):
        x, events = stream(seed)
        for homogeneous in (False, True):
            plan = PoolPlan(
                size=200,
                n_inputs=CHANNELS,
                homogeneous=homogeneous,
                excitatory=0.5,
                inhibition=1.0,
                input_weight=0.4,
                radius=2.0,
                seed=seed,
            )
            network = make_pool(plan).network
            name = "homogeneous" if homogeneous else "heterogeneous"
            cut = network.with_weights({1: np.zeros((200, 200))})
            rows.setdefault(f"{name}: no recurrence", []).append((1.0, 0.0, *memory(cut, x, events)))
            rows.setdefault(f"{name}: dense", []).append((0.0, 0.0, *memory(network, x, events)))
            for way, options in ways.items():
                if homogeneous and way != "noise":
                    continue
                result = prune_lnp(network, "pool", keep=0.5, keep_neurons=0.7, seed=seed, **options)  # type: ignore[arg-type]
                share = result.report["sparsity"]["pool"]
                measured = memory(result.network, x, events)
                rows.setdefault(f"{name}: {way}", []).append((share["synapses"], share["neurons"], *measured))
    print(f"{'mean of ' + str(n_pools) + ' pools':38} synapses  neurons   memory (sd)    operations a step")
    for name, values in rows.items():
        mean, spread = np.mean(values, axis=0), np.std(values, axis=0, ddof=min(1, n_pools - 1))
        line = f"{name:38} -{100 * mean[0]:5.1f} %   -{100 * mean[1]:4.1f} %   {mean[2]:5.2f} ({spread[2]:.2f})"
        print(f"{line}   {mean[3]:8.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
