"""What a run costs: operations by type, energy by tables from the literature, metrics under NeuroBench's names.

The energy of a run is counted, not measured: every operation of a kind costs the same, and the cost is a figure that
somebody published for some circuit. Such a sum leaves out leakage, clocks, the network on the chip and, for the plain
CMOS figures, all memory. It compares networks on one table; it does not tell what a device takes from the wall.

Operations (per sample): a spike costs one synaptic accumulation for each of its synapses, a neuron one update a step.
The dense equivalent is an artificial network with the same weights that multiplies and accumulates every one of
them every step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from snnsim.errors import InputError
from snnsim.metrics import Operations, footprint

if TYPE_CHECKING:
    from snnsim.network import Network

__all__ = ["TABLES", "EnergyEstimate", "EnergyTable", "estimate_energy", "neurobench_metrics"]

PICO = 1e-12


@dataclass(frozen=True)
class EnergyTable:
    """Energy of one operation of each kind, in picojoules, from the literature.

    Attributes:
        name: Its key in :data:`TABLES`.
        source: Where the figures stand.
        accumulate: One synaptic accumulation.
        update: One update of a neuron.
        spike: One spike given out, its transport included as far as the source says.
        multiply_accumulate: One multiply-accumulate of the dense equivalent; None where the source has none.
        remark: What the figures do not hold, or how they were put together.
    """

    name: str
    source: str
    accumulate: float
    update: float
    spike: float
    multiply_accumulate: float | None
    remark: str

    def __post_init__(self) -> None:
        for key in ("accumulate", "update", "spike", "multiply_accumulate"):
            value = getattr(self, key)
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"energy table {self.name!r}: {key}: expected picojoules from 0, got {value}")


_HOROWITZ = "M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, 45 nm, 0.9 V"

TABLES: MappingProxyType[str, EnergyTable] = MappingProxyType(
    {
        "cmos45-float32": EnergyTable(
            "cmos45-float32",
            _HOROWITZ,
            accumulate=0.9,
            update=4.6,
            spike=0.0,
            multiply_accumulate=4.6,
            remark="arithmetic alone: addition 0.9 pJ, multiplication 3.7 pJ; an update is counted as one "
            "multiplication and one addition; no memory, no transport of spikes",
        ),
        "cmos45-int32": EnergyTable(
            "cmos45-int32",
            _HOROWITZ,
            accumulate=0.1,
            update=3.2,
            spike=0.0,
            multiply_accumulate=3.2,
            remark="arithmetic alone: addition 0.1 pJ, multiplication 3.1 pJ; an update is counted as one "
            "multiplication and one addition; no memory, no transport of spikes",
        ),
        "loihi": EnergyTable(
            "loihi",
            "M. Davies et al., Loihi: a neuromorphic manycore processor with on-chip learning, IEEE Micro 38(1), 2018",
            accumulate=23.6,
            update=81.0,
            spike=1.7,
            multiply_accumulate=None,
            remark="least synaptic operation, active neuron update, spike within a tile; updates of inactive neurons "
            "(52 pJ) are counted as active, hops between tiles are left out",
        ),
    }
)
"""Every table by name. The figures are the sources', none was measured here."""


@dataclass(frozen=True)
class EnergyEstimate:
    """Energy of a run by a table, joules a sample.

    Attributes:
        table: Name of the table.
        source: Its source.
        remark: What it leaves out.
        synapses: Synaptic accumulations.
        updates: Neuron updates.
        spikes: Spikes of populations; events of inputs are not made by the network.
        total: The three together.
        dense: Multiply-accumulates of the dense equivalent, without its neurons; None if the table has no figure.
        ratio: ``dense / total``, or None.
    """

    table: str
    source: str
    remark: str
    synapses: float
    updates: float
    spikes: float
    total: float
    dense: float | None
    ratio: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the estimate as one sentence."""
        text = f"{self.table}: {self.total * 1e9:.4g} nJ a sample ({_share(self.synapses, self.total)} synapses, "
        text += f"{_share(self.updates, self.total)} updates, {_share(self.spikes, self.total)} spikes)"
        if self.ratio is not None and self.dense is not None:
            text += f"; dense equivalent {self.dense * 1e9:.4g} nJ, {self.ratio:.3g} times as much"
        return text


def _share(part: float, total: float) -> str:
    return f"{100 * part / total if total else 0.0:.1f} %"


def estimate_energy(network: Network, operations: Operations, table: str | EnergyTable) -> EnergyEstimate:
    """Estimate what a run costs, a sample.

    ``E = accumulations e_accumulate + updates e_update + spikes e_spike``; for the dense equivalent
    ``E = dense e_multiply_accumulate``.

    Args:
        network: The network that was run.
        operations: Its counts, ``Result.operations``.
        table: A key of :data:`TABLES`, or a table of your own.

    Raises:
        InputError: Unknown table, or no sample was run.
    """
    if isinstance(table, str):
        if table not in TABLES:
            raise InputError(f"energy table: expected one of {', '.join(TABLES)}, got {table!r}")
        table = TABLES[table]
    if operations.n_samples < 1:
        raise InputError("energy: no sample was run; give at least one")
    scale = PICO / operations.n_samples
    fired = sum(operations.spikes.get(item.name, 0) for item in network.populations)
    synapses = operations.synaptic_operations * table.accumulate * scale
    updates = operations.neuron_updates * table.update * scale
    spikes = fired * table.spike * scale
    total = synapses + updates + spikes
    cost = table.multiply_accumulate
    dense = None if cost is None else operations.dense * cost * scale
    ratio = dense / total if dense is not None and total > 0 else None
    return EnergyEstimate(table.name, table.source, table.remark, synapses, updates, spikes, total, dense, ratio)


def neurobench_metrics(network: Network, operations: Operations, *, accuracy: float | None = None) -> dict[str, Any]:
    """Return static and workload metrics under NeuroBench's names (Yik et al., Nature Communications 2025).

    - ``Footprint``: bytes of weights, delays and neuron parameters.
    - ``ConnectionSparsity``: absent weights over all weights.
    - ``ActivationSparsity``: share of zeros among the outputs of all spiking populations, all steps and samples.
    - ``SynapticOperations``, a sample, over all its steps: ``Effective_MACs`` of sources that give other values than 0
      and 1 (an input with coincident events), ``Effective_ACs`` of all others, ``Dense`` with every zero.

    Two details differ from the NeuroBench package: nothing is rounded, and whether an input is binary is decided for
    the run, not for each batch. A population without threshold gives no activations.

    Args:
        network: The network that was run.
        operations: Its counts, ``Result.operations``.
        accuracy: Added as ``ClassificationAccuracy`` if given.

    Raises:
        InputError: No sample was run.
    """
    if operations.n_samples < 1:
        raise InputError("metrics: no sample was run; give at least one")
    size = footprint(network)
    spiking = [item.name for item in network.populations if item.neuron.spiking]
    outputs = sum(operations.neuron_steps[name] for name in spiking)
    fired = sum(operations.active[name] for name in spiking)
    graded = [item.name for item in network.inputs if operations.spikes[item.name] != operations.active[item.name]]
    macs = sum(operations.by_source[name] for name in graded)
    share = 1.0 / operations.n_samples
    metrics: dict[str, Any] = {
        "Footprint": size.bytes,
        "ConnectionSparsity": size.connection_sparsity,
        "ActivationSparsity": 1 - fired / outputs if outputs else 0.0,
        "SynapticOperations": {
            "Effective_MACs": macs * share,
            "Effective_ACs": (operations.synaptic_operations - macs) * share,
            "Dense": operations.dense * share,
        },
    }
    if accuracy is not None:
        metrics["ClassificationAccuracy"] = accuracy
    return metrics
