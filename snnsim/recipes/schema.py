"""What a recipe may say: strict pydantic models, one class a TOML table.

An unknown key, a wrong type or a value out of range is an :class:`~snnsim.errors.InputError` that names the
key, and for an unknown key the nearest known one. Times are seconds, rates are spikes a step.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from snnsim.recipes.conv_schema import ConvSpec
from snnsim.recipes.model_checks import check_pool, check_training
from snnsim.recipes.neuron_schema import NeuronSpec, SurrogateSpec, beta_of
from snnsim.recipes.pool_schema import LawSpec, PoolSpec, StdpSpec
from snnsim.recipes.prune_schema import PruneSpec
from snnsim.recipes.quantize_schema import QuantizeSpec
from snnsim.recipes.spec import Spec
from snnsim.recipes.train_schema import (
    AugmentSpec,
    GroupSpec,
    RateSpec,
    RuleSpec,
    ScheduleSpec,
    TrainSpec,
    ValidationSpec,
)

__all__ = [
    "AugmentSpec",
    "ConnectionSpec",
    "ConvSpec",
    "DataSpec",
    "GroupSpec",
    "InitialSpec",
    "LawSpec",
    "ModelSpec",
    "NeuronSpec",
    "NormalSpec",
    "PoolSpec",
    "PruneSpec",
    "PublishedRow",
    "QuantizeSpec",
    "RateSpec",
    "ReadoutSpec",
    "Recipe",
    "RuleSpec",
    "ScheduleSpec",
    "StdpSpec",
    "SurrogateSpec",
    "TrainSpec",
    "ValidationSpec",
]


class ConnectionSpec(Spec):
    """Connections of the feed-forward path.

    Attributes:
        kind: ``linear`` (no delays; the keys of delays are then without effect, so that one change of a
            recipe gives the same network without delays) or ``delayed`` (dilated convolution with learnable
            spacings, DCLS).
        max_delay: Length of the delay window, seconds; see :meth:`kernel_steps`.
        taps: Delayed taps a synapse (the papers' kernel count, KC).
        version: Interpolation of a tap: ``gauss``, ``max``, ``v1`` or ``v0``.
        per: Whether a delay belongs to a ``synapse``, an ``axon`` (source) or a ``dendrite`` (target).
        learn_weight: False keeps the initial weights of the hidden layers, recurrent ones too; those of the readout
            always learn.
        learn_delay: False keeps the initial delays, rounded, as fixed random delays.
        delay_init: ``uniform`` over the window, ``normal`` around its middle, or ``zero`` delay.
        sigma_init: First spread of a tap, steps; none means half the window.
        sigma_end: Last spread, steps.
        sigma_epochs_fraction: Part of the epochs over which the spread shrinks geometrically.
        fix_epochs_fraction: Last part of the epochs, in which delays are rounded and fixed and only the rest is
            trained, with the exact deltas of evaluation.
    """

    kind: Literal["linear", "delayed"] = "delayed"
    max_delay: float = Field(default=0.25, gt=0)
    taps: int = Field(default=1, ge=1)
    version: Literal["gauss", "max", "v1", "v0"] = "gauss"
    per: Literal["synapse", "axon", "dendrite"] = "synapse"
    learn_weight: bool = True
    learn_delay: bool = True
    delay_init: Literal["uniform", "normal", "zero"] = "uniform"
    sigma_init: float | None = Field(default=None, ge=0)
    sigma_end: float = Field(default=0.23, gt=0)
    sigma_epochs_fraction: float = Field(default=0.25, ge=0, le=1)
    fix_epochs_fraction: float = Field(default=0.0, ge=0, lt=1)

    def kernel_steps(self, dt: float) -> int:
        """Return the window L in steps: ``max_delay / dt`` rounded, plus one if even.

        At 10 ms: 250 ms gives 25, 300 ms gives 31. Delays are 0 .. L - 1 steps.
        """
        steps = int(np.rint(self.max_delay / dt))
        return steps + 1 - steps % 2

    def first_sigma(self, dt: float) -> float:
        """Return the spread at the start of training, steps: ``sigma_init`` or ``L // 2``."""
        return float(self.kernel_steps(dt) // 2) if self.sigma_init is None else self.sigma_init


class ReadoutSpec(Spec):
    """The output layer: a connection into leaky integrators and how their trace becomes class scores.

    Attributes:
        connection: ``delayed`` or ``linear``; none means as the hidden layers.
        neuron: ``li`` or ``cubali``.
        tau_mem: Membrane time constant, seconds.
        tau_law: As for hidden neurons.
        tau_syn: Synaptic time constant of ``cubali``, seconds.
        learn: Time constants that are trained, one number a class (group ``neuron``).
        reduce: ``sum_softmax`` (sum over time of the softmax), ``mean``, ``max`` or ``last``.
        skip_steps: First steps left out of the reduction.
    """

    connection: Literal["delayed", "linear"] | None = None
    neuron: Literal["li", "cubali"] = "li"
    tau_mem: float = Field(default=0.02, gt=0)
    tau_law: Literal["exact", "euler"] = "exact"
    tau_syn: float = Field(default=0.005, gt=0)
    learn: list[Literal["tau_mem", "tau_syn"]] = Field(default_factory=list)
    reduce: Literal["sum_softmax", "mean", "max", "last"] = "sum_softmax"
    skip_steps: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> ReadoutSpec:
        if "tau_syn" in self.learn and self.neuron == "li":
            raise ValueError("readout neuron 'li' has no 'tau_syn' to learn; remove it or use 'cubali'")
        return self

    def beta(self, dt: float) -> float:
        """Return the membrane decay per step of ``dt`` seconds."""
        return beta_of(self.tau_mem, self.tau_law, dt)


class NormalSpec(Spec):
    """A normal distribution.

    Attributes:
        mean: Its mean.
        std: Its standard deviation.
    """

    mean: float
    std: float = Field(ge=0)


class InitialSpec(Spec):
    """Distributions that initial weights are drawn from; none means that of the layer itself.

    Attributes:
        input: Weights into the first hidden layer.
        hidden: Weights into the other hidden layers.
        recurrent: Recurrent weights.
        readout: Weights into the readout.
    """

    input: NormalSpec | None = None
    hidden: NormalSpec | None = None
    recurrent: NormalSpec | None = None
    readout: NormalSpec | None = None


NOT_CONV = ("hidden", "connection", "initial", "batch_norm", "recurrent", "recurrent_delay", "residual")
"""Keys of ``[model]`` that say nothing about a convolutional network."""


class ModelSpec(Spec):
    """The network: hidden layers of one kind, or a convolutional network, then a readout.

    Attributes:
        hidden: Neurons of each hidden layer.
        conv: Convolutional network instead of ``hidden``; neuron, dropout, initial_rate and readout hold for it too.
        pool: Heterogeneous recurrent pool instead of ``hidden``; of neuron only kind, learn and surrogate are taken.
        neuron: Hidden neurons.
        connection: Feed-forward connections.
        batch_norm: Batch norm over time and batch before the neurons.
        initial_rate: Spikes a neuron-step that every hidden layer is scaled to once, on the first training batch,
            before the first update; a layer within a factor of 1.5 of it is left alone. None keeps the weights as
            they were drawn.
        initial: Distributions of the initial weights.
        dropout: Probability that a spike of a hidden neuron is dropped, one mask a sequence.
        recurrent: Whether hidden layers have recurrent connections.
        recurrent_delay: Delay of the recurrent connections, seconds; none means one step.
        residual: Add the input of a hidden layer to its output where the sizes agree.
        readout: The output layer.
        tail_steps: Empty steps appended at the input; none means ``L // 2`` for every delayed layer.
    """

    hidden: list[int] = Field(default_factory=list)
    conv: ConvSpec | None = None
    pool: PoolSpec | None = None
    neuron: NeuronSpec = NeuronSpec()
    connection: ConnectionSpec = ConnectionSpec()
    batch_norm: bool = True
    initial_rate: float | None = Field(default=None, gt=0, lt=1)
    initial: InitialSpec = InitialSpec()
    dropout: float = Field(default=0.0, ge=0, lt=1)
    recurrent: bool = False
    recurrent_delay: float | None = Field(default=None, gt=0)
    residual: bool = False
    readout: ReadoutSpec = ReadoutSpec()
    tail_steps: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> ModelSpec:
        if self.conv is not None:
            self._check_conv()
        if self.pool is not None:
            check_pool(self)
        elif self.conv is None and not self.hidden:
            raise ValueError("expected hidden layers (hidden = [128, 128]) or a table [model.conv] or [model.pool]")
        if self.neuron.kind in ("meta-dynamic", "liquid"):
            self._check_special()
        if any(size < 1 for size in self.hidden):
            raise ValueError(f"hidden: expected positive layer sizes, got {self.hidden}")
        if self.neuron.kind in ("meta", "levy-baxter"):
            for key in ("conv", "recurrent", "residual"):
                if getattr(self, key):
                    raise ValueError(
                        f"neuron kind {self.neuron.kind!r} has no random synapses for {key!r}; remove it or change kind"
                    )
        if self.initial.recurrent is not None and not self.recurrent:
            raise ValueError("initial.recurrent needs recurrent = true")
        if self.initial.hidden is not None and len(self.hidden) < 2:
            raise ValueError("initial.hidden needs a second hidden layer")
        if self.recurrent_delay is not None and not self.recurrent:
            raise ValueError("recurrent_delay needs recurrent = true")
        return self

    def _check_special(self) -> None:
        """Refuse what networks of neurons with a law of their own cannot have."""
        kind = self.neuron.kind
        if self.conv is not None:
            raise ValueError(f"neuron kind {kind!r} is not for convolutional networks; use hidden layers")
        if kind == "meta-dynamic":
            return
        if self.connection.kind != "linear":
            raise ValueError("neuron kind 'liquid' has connections without delays; set connection.kind = 'linear'")
        if self.batch_norm or self.recurrent or self.initial_rate is not None:
            raise ValueError("neuron kind 'liquid' has no batch_norm, recurrent or initial_rate; switch them off")
        if self.initial.input is not None or self.initial.hidden is not None:
            raise ValueError("neuron kind 'liquid' draws its own weights; use neuron.conductance, not initial")

    def _check_conv(self) -> None:
        fields = type(self).model_fields
        wrong = [k for k in NOT_CONV if getattr(self, k) != fields[k].get_default(call_default_factory=True)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} says nothing about a convolutional network; remove it or [model.conv]")
        if self.readout.connection is not None:
            raise ValueError("readout.connection: the readout of a convolutional network has no delays; remove it")

    def readout_connection(self) -> ConnectionSpec:
        """Return the connection into the readout: the hidden one, with the readout's kind if it names one.

        That of a pool is without delays unless the readout says otherwise.
        """
        kind = self.readout.connection or ("linear" if self.pool is not None else self.connection.kind)
        return self.connection if kind == self.connection.kind else self.connection.model_copy(update={"kind": kind})

    def tail(self, dt: float) -> int:
        """Return the empty steps appended at the input, so that delayed spikes still reach the readout."""
        if self.tail_steps is not None or self.conv is not None:
            return self.tail_steps or 0
        half = self.connection.kernel_steps(dt) // 2
        layers = len(self.hidden) if self.connection.kind == "delayed" else 0
        layers += self.readout_connection().kind == "delayed"
        return half * layers


class DataSpec(Spec):
    """How events become batches.

    Attributes:
        dt: Time step, seconds.
        align: ``first-spike`` (time starts at a sample's first event) or ``zero``.
        channels: Pool neighbouring channels until at most this many are left; none keeps all.
        repeat_steps: Steps for which a still image is shown, its values the input of every step; none for events.
    """

    dt: float = Field(default=0.01, gt=0)
    align: Literal["first-spike", "zero"] = "first-spike"
    channels: int | None = Field(default=140, ge=1)
    repeat_steps: int | None = Field(default=None, ge=1)

    def pool(self, n_units: int) -> int:
        """Return how many neighbouring channels are summed into one (700 channels to 140: 5)."""
        return 1 if self.channels is None else max(1, -(-n_units // self.channels))


class PublishedRow(Spec):
    """A published result and how it was measured.

    Attributes:
        variant: Name of the row; ``RECIPE:VARIANT`` runs it.
        changes: ``key=value`` changes of the recipe that reach it.
        data: The data set it was measured on.
        accuracy: Mean test accuracy, 0 .. 1; none if the publication is not recovered.
        spread: Standard deviation over seeds.
        parameters: Trainable parameters on the published data.
        protocol: How the epoch was chosen and what was held out.
        source: The publication.
    """

    variant: str
    changes: list[str] = Field(default_factory=list)
    data: str
    accuracy: float | None = Field(default=None, ge=0, le=1)
    spread: float | None = Field(default=None, ge=0)
    parameters: int | None = Field(default=None, ge=1)
    protocol: str
    source: str


class Recipe(Spec):
    """One experiment: data, model, training, and the published numbers it stands beside."""

    name: str
    summary: str
    variant: str | None = None
    data: DataSpec = DataSpec()
    model: ModelSpec
    train: TrainSpec
    prune: PruneSpec | None = None
    quantize: QuantizeSpec | None = None
    published: list[PublishedRow] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        check_training(self.model, self.train, self.prune)
        if self.quantize is not None:
            self._check_quantize()
        prune = self.prune
        if prune is None:
            return self
        if self.model.conv is not None:
            raise ValueError(
                "prune: expected layers whose synapses have weights of their own; a convolution shares them"
            )
        if prune.last_epoch() >= self.train.epochs:
            raise ValueError(
                f"prune: its last round comes at the beginning of epoch {prune.last_epoch()} (counted from 0), the run "
                f"has {self.train.epochs}; lower prune.start, every or rounds, or raise train.epochs"
            )
        if self.train.rule.wake:
            raise ValueError("prune: train.rule.wake would add to synapses that are gone; use wake = 0")
        if prune.method in ("rigl", "deep-r") and not self.model.connection.learn_weight:
            raise ValueError(
                f"prune: synapses that method {prune.method!r} lets grow start at 0 and have to learn; set "
                "model.connection.learn_weight = true or choose another method"
            )
        if prune.method in ("snip", "rigl") and self.train.rule.update == "step":
            raise ValueError(
                f"prune: method {prune.method!r} needs the gradient of a batch; use rule.update 'sequence'"
            )
        if prune.method in ("activity", "neurons") and self.model.residual:
            raise ValueError(
                f"prune: method {prune.method!r} removes neurons, which residual = true carries on; use 'magnitude'"
            )
        return self

    def _check_quantize(self) -> None:
        """Refuse what cannot be trained on a target's grid."""
        if self.model.conv is not None:
            raise ValueError("quantize: expected layers with weights of their own; a convolution shares them")
        if self.prune is not None:
            raise ValueError("quantize: prune in a run of its own and start from it (--from RUN)")
        if self.train.learning not in ("bptt", "sltt", "sltt-k") or self.train.rule.update == "step":
            raise ValueError(
                f"quantize: expected train.learning 'bptt', 'sltt' or 'sltt-k' with rule.update 'sequence', got "
                f"{self.train.learning!r} and {self.train.rule.update!r}"
            )

    def published_row(self) -> PublishedRow | None:
        """Return the published row of this variant (the first row if no variant was asked for)."""
        for row in self.published:
            if self.variant is None or row.variant == self.variant:
                return row
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values that :func:`snnsim.recipes.recipe_from_dict` reads back."""
        return self.model_dump(mode="json")  # with nulls: a key that was switched off must not get its default back
