"""What a recipe may say about a heterogeneous recurrent pool (HRSNN), and about unsupervised STDP of its synapses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from snnsim.recipes.spec import Spec

__all__ = ["LawSpec", "PoolSpec", "StdpSpec"]

LAW_KEYS: dict[str, tuple[str, ...]] = {
    "constant": ("value",),
    "gamma": ("shape", "scale"),
    "log-normal": ("median", "sigma"),
    "empirical": ("values",),
}


class LawSpec(Spec):
    """A distribution of positive numbers over the neurons, see :mod:`snnsim.pruning.laws`.

    Attributes:
        law: ``constant`` (``value``), ``gamma`` (``shape``, ``scale``), ``log-normal`` (``median``, ``sigma``) or
            ``empirical`` (``values``: measured numbers).
        value: The one number.
        shape: Shape of the gamma distribution.
        scale: Its scale, in the unit of the numbers; the mean is ``shape scale``.
        median: Median of the log-normal distribution.
        sigma: Standard deviation of its logarithm.
        values: Measured numbers.
    """

    law: Literal["constant", "gamma", "log-normal", "empirical"]
    value: float | None = Field(default=None, gt=0)
    shape: float | None = Field(default=None, gt=0)
    scale: float | None = Field(default=None, gt=0)
    median: float | None = Field(default=None, gt=0)
    sigma: float | None = Field(default=None, gt=0)
    values: list[float] | None = None

    @model_validator(mode="after")
    def _check(self) -> LawSpec:
        needed = LAW_KEYS[self.law]
        for key in ("value", "shape", "scale", "median", "sigma", "values"):
            if (getattr(self, key) is not None) != (key in needed):
                given = "is missing" if key in needed else f"has no {key!r}"
                raise ValueError(f"law {self.law!r} {given}: expected {' and '.join(needed)}")
        if self.values is not None and (not self.values or min(self.values) <= 0):
            raise ValueError(f"law 'empirical': expected positive numbers in values, got {self.values}")
        return self


class PoolSpec(Spec):
    """A recurrent pool as the only hidden layer: drawn by :func:`snnsim.pruning.pools.make_pool`, or read from a file.

    Only the synapses that the pool has are trained; the others stay absent, by a mask.

    Attributes:
        file: A network file with one recurrent population, such as ``snnsim prune`` writes: its neurons and recurrent
            synapses, and those from its input if it has one. The keys that draw a pool are then refused.
        size: Neurons.
        excitatory: Share of excitatory neurons, the first ones.
        structure: ``random``, ``small-world`` or ``blocks``.
        density: Share of the ordered pairs with a synapse (inside blocks).
        rewire: Share of moved synapses of ``small-world``.
        n_blocks: Groups of ``blocks``.
        between: Density between them.
        weight: Distribution of the sizes of recurrent weights before scaling.
        inhibition: Factor on inhibitory weights.
        radius: Spectral radius that the recurrent weights are scaled to; 0 leaves them.
        tau_mem: Distribution of membrane time constants, seconds.
        tau_syn: Distribution of synaptic time constants, seconds (neuron kind ``cubalif``).
        v_threshold: Distribution of thresholds.
        tau_max: Greatest time constant, seconds; the least is two steps. What lies outside is clipped.
        threshold_min: Least threshold.
        threshold_max: Greatest threshold.
        homogeneous: The control: the means of the three distributions for all neurons.
        input_share: Share of the neurons that get synapses from the input.
        input_weight: Mean initial weight of these; weights are uniform from 0 to its double.
        seed: Seed of the pool; none takes the run's, so that every run has another pool.
        learn: Which synapses the learning rule trains: ``input``, ``recurrent``; empty is a reservoir. The readout is
            always trained.
    """

    file: str | None = None
    size: int = Field(default=200, ge=2)
    excitatory: float = Field(default=0.8, ge=0, le=1)
    structure: Literal["random", "small-world", "blocks"] = "random"
    density: float = Field(default=0.1, gt=0, le=1)
    rewire: float = Field(default=0.1, ge=0, le=1)
    n_blocks: int = Field(default=4, ge=1)
    between: float = Field(default=0.01, ge=0, le=1)
    weight: LawSpec = LawSpec(law="gamma", shape=2.0, scale=0.5)
    inhibition: float = Field(default=4.0, gt=0)
    radius: float = Field(default=0.9, ge=0)
    tau_mem: LawSpec = LawSpec(law="gamma", shape=3.0, scale=0.02 / 3)
    tau_syn: LawSpec = LawSpec(law="gamma", shape=3.0, scale=0.005 / 3)
    v_threshold: LawSpec = LawSpec(law="constant", value=1.0)
    tau_max: float = Field(default=0.2, gt=0)
    threshold_min: float = Field(default=0.2, gt=0)
    threshold_max: float = Field(default=5.0, gt=0)
    homogeneous: bool = False
    input_share: float = Field(default=0.3, gt=0, le=1)
    input_weight: float = Field(default=0.5, gt=0)
    seed: int | None = Field(default=None, ge=0)
    learn: list[Literal["input", "recurrent"]] = Field(default_factory=lambda: ["input", "recurrent"])  # type: ignore[arg-type,unused-ignore]

    @model_validator(mode="after")
    def _check(self) -> PoolSpec:
        fields = type(self).model_fields
        free = ("file", "learn", "seed", "input_share", "input_weight")
        if self.file is not None:
            given = [k for k in fields if k not in free and getattr(self, k) != fields[k].default]
            if given:
                raise ValueError(
                    f"{given[0]!r} draws a pool, but the pool comes from {self.file!r}; remove one of them"
                )
        kinds = {"rewire": "small-world", "n_blocks": "blocks", "between": "blocks"}
        for key, structure in kinds.items():
            if getattr(self, key) != fields[key].default and self.structure != structure:
                raise ValueError(f"{key!r} belongs to structure {structure!r}, got {self.structure!r}; remove it")
        if len(set(self.learn)) != len(self.learn):
            raise ValueError("learn names synapses twice")
        if self.threshold_min > self.threshold_max:
            raise ValueError(
                f"expected threshold_min <= threshold_max, got {self.threshold_min} > {self.threshold_max}"
            )
        return self


class StdpSpec(Spec):
    """Unsupervised STDP of a pool's excitatory synapses before anything else is trained; no label is used.

    The samples of the training part run through the pool one after the other, on the network's grid, while synapses
    change by pairs of spikes (:class:`snnsim.plasticity.PairSTDP`).

    Attributes:
        synapses: Which learn: ``recurrent``, ``input``.
        epochs: Passes over the training samples.
        a_plus: Potentiation by a pair, in units of the mean initial weight (additive) or as share of the room to the
            largest weight (multiplicative).
        a_minus: Depression by a pair, likewise.
        tau_plus: Time constant of potentiation, seconds.
        tau_minus: Time constant of depression, seconds.
        bound: ``additive`` or ``multiplicative``.
        w_max: Largest weight, as a multiple of the largest initial one.
        normalise: After every chunk of samples, scale the learning synapses of a neuron to their initial sum.
        chunk: Samples a chunk.
        gap: Silence between two samples, seconds.
    """

    synapses: list[Literal["input", "recurrent"]] = Field(default_factory=lambda: ["recurrent"])  # type: ignore[arg-type,unused-ignore]
    epochs: int = Field(default=1, ge=1)
    a_plus: float = Field(default=0.002, ge=0)
    a_minus: float = Field(default=0.0025, ge=0)
    tau_plus: float = Field(default=0.02, gt=0, le=3600)
    tau_minus: float = Field(default=0.02, gt=0, le=3600)
    bound: Literal["additive", "multiplicative"] = "additive"
    w_max: float = Field(default=2.0, gt=1)
    normalise: bool = True
    chunk: int = Field(default=8, ge=1)
    gap: float = Field(default=0.2, ge=0, le=3600)

    @model_validator(mode="after")
    def _check(self) -> StdpSpec:
        if not self.synapses or len(set(self.synapses)) != len(self.synapses):
            raise ValueError("synapses: expected 'recurrent', 'input' or both, each once")
        return self
