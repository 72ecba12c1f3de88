"""Turn sound into spikes with the cochlea model, and draw them.

The sound here is a rising tone; `snnsim.datasets.audio.read_audio` reads files.

    python examples/encode_audio.py [PICTURE.png]
"""

import sys
from pathlib import Path

import numpy as np

from snnsim.datasets.cochlea import encode
from snnsim.events import Events
from snnsim.plots import sample, to_png

RATE = 16_000
seconds = np.arange(int(0.4 * RATE)) / RATE
sweep = np.sin(2 * np.pi * 300 * 0.4 / np.log(10) * (np.exp(seconds / 0.4 * np.log(10)) - 1))  # 300 Hz to 3 kHz

times, units = encode(sweep, RATE, seed=7, channels=200)
events = Events.from_lists([times], [units], n_units=200)

print(f"{events.n_events} spikes in {np.unique(units).size} of 200 channels, last at {times[-1]:.3f} s")
for begin in (0.05, 0.15, 0.25, 0.35):
    now = units[(times >= begin) & (times < begin + 0.05)]
    print(f"{1e3 * begin:3.0f} ms: median channel {np.median(now):.0f}")  # low channels are high tones
if len(sys.argv) > 1:
    Path(sys.argv[1]).write_bytes(to_png(sample({"rising tone": events})))
