"""Learn spoken digits without gradients: a Tempotron, and a layer that learns by spike timing alone.

Both see the built-in digits as they are, 700 channels of a cochlea; the test is on voices that were never heard. The
layer learns without labels; its rates are then compared with the mean rates of each class.

    python examples/local_rules.py [seed] [epochs of the Tempotron]
"""

import sys

import numpy as np
import numpy.typing as npt

from snnsim.datasets import open_dataset
from snnsim.events import Events
from snnsim.learning import STDP, STDPLayer, Tempotron
from snnsim.learning.stdp import Homeostasis
from snnsim.neurons import LIF

seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 10
data = open_dataset("spoken-digits")
Rates = npt.NDArray[np.float64]


def by_class_means(train: Rates, test: Rates) -> float:
    """Return the share of test samples that lie nearest to the mean of their class, in units of the spread."""
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1.0
    centres = np.array([((train - mean) / spread)[data.train.labels == c].mean(axis=0) for c in range(data.n_classes)])
    distance = np.square(((test - mean) / spread)[:, None] - centres).sum(axis=2)
    return float(np.mean(distance.argmin(axis=1) == data.test.labels))


def channel_rates(events: Events) -> Rates:
    counts = [np.bincount(sample.units, minlength=events.n_units) for sample in events]
    return np.asarray(counts / events.duration[:, None])


tempotron = Tempotron(data.n_units, data.n_classes, tau_mem=0.04, tau_syn=0.01, rate=1e-5, w_start=1e-5, seed=seed)
errors = tempotron.fit(data.train, epochs=epochs)
print(f"tempotron, errors in epochs 1 and {errors.size}: {errors[0]} and {errors[-1]}")
print(
    f"tempotron: accuracy {tempotron.score(data.train):.3f} on training voices, {tempotron.score(data.test):.3f} on new"
)

layer = STDPLayer(
    *(data.n_units, 100, STDP(a_plus=0.01, a_minus=0.008)),
    neuron=LIF(tau_mem=0.02, t_ref=0.002),
    winners=1,
    homeostasis=Homeostasis(target=10.0, rate=0.01),
    normalise="sum",
    total=20.0,
    start=(0.0, 0.1),
    seed=seed,
)
print(
    f"class means of channels: {by_class_means(channel_rates(data.train), channel_rates(data.test)):.3f} on new voices"
)
before = by_class_means(layer.rates(data.train), layer.rates(data.test))
layer.fit(data.train, epochs=1)
after = by_class_means(layer.rates(data.train), layer.rates(data.test))
print(f"class means of layer: {before:.3f} with its first weights, {after:.3f} after STDP, on new voices")
print(
    f"spikes a second and neuron: {layer.rates(data.test).mean():.1f}; weights at 0: {np.mean(layer.weight == 0):.2f}"
)
