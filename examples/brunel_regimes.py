"""Brunel's network in its four regimes: the same synapses, another balance and another drive.

python examples/brunel_regimes.py              prints
python examples/brunel_regimes.py regimes      also draws regimes-SR.png and so on
"""

import sys
from pathlib import Path

import numpy as np

from snnsim.engines import simulate
from snnsim.metrics import mean_rates
from snnsim.models import brunel
from snnsim.plots import raster, to_png

REGIMES = {
    "SR": (3.0, 2.0, "synchronous regular"),
    "SI-fast": (6.0, 4.0, "synchronous irregular, fast"),
    "AI": (5.0, 2.0, "asynchronous irregular"),
    "SI-slow": (4.5, 0.9, "synchronous irregular, slow"),
}
STEPS, START = 4000, 0.2  # 400 ms in steps of 0.1 ms, the first 200 ms left out

for name, (g, eta, words) in REGIMES.items():
    model = brunel(g=g, eta=eta, seed=1)
    result = simulate(model.network, None, n_steps=STEPS, stimuli=model.stimuli, dtype="float32", seed=1)
    times = np.concatenate([spikes.times for spikes in result.spikes.values()])
    counts = np.histogram(times, np.arange(START, STEPS * 1e-4, 0.001))[0]
    found = mean_rates(result.spikes, START)
    wave = counts.var() / counts.mean()
    print(f"{name:8} {words:28} {found['exc']:6.1f} spikes/s, variance / mean of 1 ms counts {wave:.0f}")
    if len(sys.argv) > 1:
        path = Path(f"{sys.argv[1]}-{name}.png")
        path.write_bytes(to_png(raster(result.spikes, start=0.3, stop=0.4, bin_width=0.0005, title=f"{name}: {words}")))
        print(f"wrote {path}")
