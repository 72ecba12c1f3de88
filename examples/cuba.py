"""The Vogels-Abbott network with exponential currents: rates, irregularity and a raster.

python examples/cuba.py              prints
python examples/cuba.py cuba.png     also draws
"""

import sys
from pathlib import Path

import numpy as np

from snnsim.engines import simulate
from snnsim.metrics import mean_rates
from snnsim.models import cuba
from snnsim.plots import raster, to_png

model = cuba(seed=1)
result = simulate(model.network, None, n_steps=10_000, initial=model.initial)  # one second in steps of 0.1 ms

for name, rate in mean_rates(result.spikes, start=0.1).items():
    spikes = result.spikes[name]
    trains = np.split(spikes.times[np.argsort(spikes.units, kind="stable")], np.cumsum(np.bincount(spikes.units))[:-1])
    intervals = [np.diff(train) for train in trains if len(train) > 5]
    irregularity = np.mean([part.std() / part.mean() for part in intervals])
    print(f"{name}: {rate:.2f} spikes/s a neuron, coefficient of variation of the intervals {irregularity:.2f}")
print(f"synaptic events: {result.operations.synaptic_operations}")

if len(sys.argv) > 1:
    picture = raster(result.spikes, start=0.6, stop=1.0, title="CUBA: 3200 excitatory and 800 inhibitory neurons")
    Path(sys.argv[1]).write_bytes(to_png(picture))
    print(f"wrote {sys.argv[1]}")
