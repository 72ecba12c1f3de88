"""What a command line names: a run folder or a network file, and training samples for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnsim.errors import InputError

if TYPE_CHECKING:
    from snnsim.events import Events
    from snnsim.integer_network import IntegerNetwork
    from snnsim.network import Network

__all__ = ["open_source", "training_samples"]


def open_source(source: Path) -> tuple[Network, Path, Any]:
    """Return the network, the path that its export is named after, and the run if it is one."""
    if source.is_dir():
        from snnsim.training.runs import load_run

        run = load_run(source)
        return run.network(), source / run.default, run
    from snnsim.network import Network

    name = source.name.removesuffix(".h5").removesuffix(".snn")
    return Network.load(source), source.with_name(name), None


def training_samples(
    name: str, network: Network | IntegerNetwork, run: Any, count: int, option: str = "--events"
) -> Events:
    """Return the first training samples of a data set, on the network's channels (the test set stays unseen)."""
    import numpy as np

    from snnsim.datasets import open_dataset
    from snnsim.training.prepare import pool_units, prepare_split

    dataset = open_dataset(name)
    size = network.inputs[0].size
    if run is not None:
        chosen = prepare_split(run.recipe, dataset, "train", run.manifest)
        pool = run.pool
    else:
        chosen, pool = dataset.train, dataset.n_units // size
    if pool < 1 or -(-chosen.n_units // pool) != size:
        raise InputError(f"{option}: {name!r} has {chosen.n_units} channels, the network {size}; use matching data")
    return pool_units(chosen.subset(np.arange(min(count, len(chosen)))), pool)
