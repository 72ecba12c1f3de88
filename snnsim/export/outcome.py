"""What every proof says of itself, whichever program judged: layers compared, planted errors, and whether it counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snnsim.files import write_json

__all__ = ["MIN_NEURON_STEPS", "MIN_SPIKES", "LayerProof", "MutationProof", "Outcome", "shortfalls"]

MIN_NEURON_STEPS = 1_000_000
MIN_SPIKES = 10_000


@dataclass(frozen=True)
class LayerProof:
    """The comparison of one population.

    Attributes:
        population: Name.
        size: Neurons.
        compared: Neuron-steps compared.
        spikes: Spikes of the reference in them.
        mismatches: Neuron-steps that differ.
        first: Sample, step and neuron of the first difference, or None.
        trace_error: For a population without threshold: largest difference relative to the largest value.
    """

    population: str
    size: int
    compared: int
    spikes: int
    mismatches: int
    first: tuple[int, int, int] | None = None
    trace_error: float | None = None

    def sentence(self) -> str:
        """Return it as one line."""
        if self.trace_error is not None:
            return f"{self.population}: membrane trace equal within {self.trace_error:.1e}."
        text = f"{self.population}: {self.spikes} spikes, {self.mismatches} differences"
        if self.first is not None:
            text += " (first: sample {}, step {}, neuron {})".format(*self.first)
        return text + "."


@dataclass(frozen=True)
class MutationProof:
    """One planted error, and what the comparison said to it."""

    kind: str
    what: str
    mismatches: int

    @property
    def caught(self) -> bool:
        """Whether the comparison failed, as it must."""
        return self.mismatches > 0

    def sentence(self) -> str:
        """Return it as one line."""
        return f"Planted {self.what}: {self.mismatches} differences{'' if self.caught else ' - NOT CAUGHT'}."


def shortfalls(layers: Iterable[LayerProof]) -> list[str]:
    """Return sentences about what is too little for a proof that counts."""
    spiking = [layer for layer in layers if layer.trace_error is None]
    compared = sum(layer.compared for layer in spiking)
    found = []
    if compared < MIN_NEURON_STEPS:
        found.append(f"Only {compared} neuron-steps were compared; a proof that counts needs {MIN_NEURON_STEPS}.")
    few = [layer for layer in spiking if layer.spikes < MIN_SPIKES]
    return found + [f"{layer.population} has only {layer.spikes} spikes; a proof needs {MIN_SPIKES}." for layer in few]


@dataclass(frozen=True)
class Outcome:
    """Base of the proofs.

    Attributes:
        reference: What the judge was compared with.
        judge: The other program.
        digest: Content hash of the network.
        inputs_sha256: Hash of the input as the judge got it.
        layers: One comparison a population.
        mutations: Planted errors; every one must be caught.
        n_samples: Samples run.
        n_steps: Steps a sample.
        source: Where the input comes from: a data set, or generated with a rate and a seed.
        remarks: What the comparison did not exercise, and what falls short.
        seconds: Time taken.
        missing: Why nothing was compared, or empty.
    """

    reference: str
    judge: str
    digest: str
    inputs_sha256: str
    layers: tuple[LayerProof, ...]
    mutations: tuple[MutationProof, ...]
    n_samples: int
    n_steps: int
    source: str
    remarks: tuple[str, ...]
    seconds: float
    missing: str

    @property
    def mismatches(self) -> int:
        """Neuron-steps whose spikes differ, over all populations, and whatever else is counted."""
        return sum(layer.mismatches for layer in self.layers)

    @property
    def compared(self) -> int:
        """Neuron-steps compared, over all spiking populations."""
        return sum(layer.compared for layer in self.layers if layer.trace_error is None)

    @property
    def spikes(self) -> dict[str, int]:
        """Spikes of the reference by population."""
        return {layer.population: layer.spikes for layer in self.layers if layer.trace_error is None}

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.mismatches == 0

    @property
    def enough(self) -> bool:
        """Whether a million neuron-steps and ten thousand spikes in every layer were compared."""
        return self.compared >= MIN_NEURON_STEPS and all(count >= MIN_SPIKES for count in self.spikes.values())

    @property
    def holds(self) -> bool:
        """Whether the proof counts: equal, enough compared, and every planted error caught."""
        caught = bool(self.mutations) and all(item.caught for item in self.mutations)
        return not self.missing and self.equal and self.enough and caught

    @property
    def first_difference(self) -> tuple[str, int, int, int] | None:
        """Population, sample, step and neuron of the first difference, or None."""
        return next(((layer.population, *layer.first) for layer in self.layers if layer.first is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`save` writes."""
        values = asdict(self)
        values["mutations"] = [{**asdict(item), "caught": item.caught} for item in self.mutations]
        derived = {
            "holds": self.holds,
            "compared": self.compared,
            "mismatches": self.mismatches,
            "enough": self.enough,
            "first_difference": self.first_difference,
        }
        return {"schema": 1, **derived, **values}

    def save(self, path: str | Path) -> Path:
        """Write the proof as JSON, atomically."""
        write_json(path, self.to_dict())
        return Path(path)

    def headline(self) -> list[str]:
        """Return the first sentences: how much was compared and how much of it differs."""
        spikes = sum(layer.mismatches for layer in self.layers)
        return [
            f"{spikes} of {self.compared} neuron-steps differ between {self.reference} and {self.judge} "
            f"({self.n_samples} samples of {self.n_steps} steps, {self.source})."
        ]

    def costs(self) -> list[str]:
        """Return sentences about what the judge took."""
        return []

    def sentences(self) -> list[str]:
        """Return the outcome as text, one sentence a line."""
        if self.missing:
            return [f"Not proven: {self.missing}."]
        return [
            *self.headline(),
            *(layer.sentence() for layer in self.layers),
            *(item.sentence() for item in self.mutations),
            *self.costs(),
            *self.remarks,
            "The proof holds." if self.holds else "The proof does NOT hold.",
        ]
