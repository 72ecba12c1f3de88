"""Export a recurrent network with delays to NIR and prove that another program gives the same spikes.

The file is read by `nir`, wired by `nirtorch` and run with SpikingJelly's neurons; nothing of snnsim computes there.
Needs the extras `nir` and `peers`.

    python examples/export_with_proof.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from snnsim.export import TARGETS, export_network
from snnsim.export.proof import prove
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import LIF

rng = np.random.default_rng(0)
DT = 0.001


def delays(n_target: int, n_source: int, longest: int) -> np.ndarray:
    """One delay a synapse, in whole steps of at least one."""
    return rng.integers(1, longest + 1, (n_target, n_source)) * DT


network = Network(
    populations=(
        Population("first", 60, LIF.from_step(dt=DT, beta=rng.uniform(0.8, 0.95, 60), drive_step=0.01)),
        Population("second", 40, LIF.from_step(dt=DT, beta=0.9, reset="subtract")),
    ),
    projections=(
        Projection("input", "first", rng.normal(0.05, 0.2, (60, 30)), delays(60, 30, 12)),
        Projection("first", "first", rng.normal(-0.02, 0.05, (60, 60)), delays(60, 60, 5)),
        Projection("first", "second", rng.normal(0.05, 0.2, (40, 60)), delays(40, 60, 8)),
    ),
    inputs=(Input("input", 30),),
    readout=None,
    dt=DT,
)

with TemporaryDirectory() as folder:
    path = Path(folder) / "network.nir"
    report = export_network(network, "nir", path)
    proof = prove(network, TARGETS["nir"].load_judge(path))
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")

print(*report.changes, sep="\n")
print(*proof.sentences(), sep="\n")
