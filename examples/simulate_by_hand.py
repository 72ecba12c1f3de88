"""Build a network by hand, with delays as its only knowledge, and simulate it on the clock engine.

The toy data set has four classes that differ only in the delays between groups of channels. Each hidden neuron
below delays every group so that the pattern of one class arrives at one instant.

    python examples/simulate_by_hand.py
"""

import numpy as np

from snnsim.datasets import make_toy
from snnsim.engines import simulate
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import LI, LIF

DT = 0.005

data = make_toy()
delays = np.asarray(data.notes["delays"])  # (class, group), seconds: the known answer
n_classes, n_groups = delays.shape
opposite = np.repeat(delays.max() - delays, data.n_units // n_groups, axis=1)  # (class, channel)

network = Network(
    populations=(Population("hidden", n_classes, LIF(tau_mem=0.01)), Population("readout", n_classes, LI(tau_mem=0.1))),
    projections=(
        Projection("sound", "hidden", weight=np.full(opposite.shape, 0.035), delay=opposite),
        Projection("hidden", "readout", weight=np.eye(n_classes)),
    ),
    inputs=(Input("sound", data.n_units),),
    readout=Readout("readout", reduce="max"),
    dt=DT,
)
tail_steps = network.max_delay_steps() + 1  # let the longest delay arrive
result = simulate(network, data.test, tail_steps=tail_steps, record=["hidden.v"])

print(f"accuracy {np.mean(result.predictions == data.test.labels):.3f} on {len(data.test)} samples")
print(f"spikes of hidden neurons: {np.bincount(result.spikes['hidden'].units, minlength=n_classes).tolist()}")
print(f"highest membrane potential in sample 0: {result.records['hidden.v'][0].max():.3f}")
print(f"synaptic operations a sample: {result.operations.synaptic_operations / len(data.test):.0f}")
