"""The cortical microcircuit of Potjans and Diesmann, whole or reduced.

python examples/microcircuit.py                        a tenth: 7717 neurons, 3 million synapses
python examples/microcircuit.py 1.0 microcircuit.png   the whole: 77 169 neurons, 0.3 billion synapses
"""

import sys
from pathlib import Path

from snnsim.engines import simulate
from snnsim.metrics import footprint, mean_rates
from snnsim.models import RATES, microcircuit
from snnsim.plots import raster, to_png

scale = float(sys.argv[1]) if len(sys.argv) > 1 else 0.1
model = microcircuit(scale=scale, seed=1)
size = footprint(model.network)
print(f"{size.neurons} neurons, {size.synapses} synapses, {size.bytes / size.synapses:.1f} bytes a synapse")

result = simulate(
    model.network, None, n_steps=15_000, dtype="float32", initial=model.initial, stimuli=model.stimuli, seed=1
)
print("population   spikes/s   whole network in NEST")
for (name, rate), published in zip(mean_rates(result.spikes, 0.5).items(), RATES, strict=True):
    print(f"{name:10} {rate:10.2f} {published:10.2f}")

if len(sys.argv) > 2:
    picture = raster(result.spikes, start=1.0, stop=1.3, neurons=800, title=f"microcircuit, scale {scale:g}")
    Path(sys.argv[2]).write_bytes(to_png(picture))
    print(f"wrote {sys.argv[2]}")
