"""What a recipe may say about training: the rule, the loss, optimisers, augmentation, validation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from snnsim.recipes.pool_schema import StdpSpec
from snnsim.recipes.spec import Spec

__all__ = ["AugmentSpec", "GroupSpec", "RateSpec", "RuleSpec", "ScheduleSpec", "TrainSpec", "ValidationSpec"]


class AugmentSpec(Spec):
    """Random changes of training samples, each drawn from (seed, epoch, sample id); zero switches one off.

    The keys are those of :class:`snnsim.datasets.augment.Augment`, which says what each does.

    Attributes:
        blend: Probability of mixing with another sample of the same class.
        cutmix: Probability of replacing a stretch of time by that of another sample.
        drop: Probability that an event is left out.
        time_jitter: Standard deviation of each event's time, seconds.
        channel_jitter: Standard deviation of each event's channel.
        time_stretch: Largest change of speed, as part of it (0.2: times are multiplied by 0.8 to 1.2, and with
            ``padding = "masked"`` the number of steps too).
        time_shift: Largest shift in time, seconds.
        channel_shift: Largest shift over channels, as part of the channels (0.03 of 700 are 21), rounded.
        time_mask: Longest masked stretch of time, as part of the sample.
        channel_mask: Widest masked band of channels, as part of all.
        mask_probability: Probability that each of the two masks is applied.
    """

    blend: float = Field(default=0.0, ge=0, le=1)
    cutmix: float = Field(default=0.0, ge=0, le=1)
    drop: float = Field(default=0.0, ge=0, lt=1)
    time_jitter: float = Field(default=0.0, ge=0)
    channel_jitter: float = Field(default=0.0, ge=0)
    time_stretch: float = Field(default=0.0, ge=0, lt=1)
    time_shift: float = Field(default=0.0, ge=0)
    channel_shift: float = Field(default=0.0, ge=0, le=1)
    time_mask: float = Field(default=0.0, ge=0, le=1)
    channel_mask: float = Field(default=0.0, ge=0, le=1)
    mask_probability: float = Field(default=1.0, ge=0, le=1)


class ScheduleSpec(Spec):
    """Learning rate over the run.

    Attributes:
        kind: ``constant``, ``one-cycle`` or ``cosine``.
        unit: What one step of the schedule is: an ``epoch`` or a ``batch``.
        max_factor: Peak of the one-cycle, as a multiple of the group's ``lr``.
        div: One-cycle starts at the peak divided by this.
        final_div: One-cycle ends at its start divided by this.
        peak: Part of the run at which one-cycle peaks.
        cycle_momentum: Whether one-cycle moves momentum (Adam: beta 1) from 0.95 to 0.85 and back.
        floor: Learning rate at the end of ``cosine``.
    """

    kind: Literal["constant", "one-cycle", "cosine"] = "constant"
    unit: Literal["epoch", "batch"] = "epoch"
    max_factor: float = Field(default=5.0, gt=0)
    div: float = Field(default=25.0, gt=0)
    final_div: float = Field(default=1e4, gt=0)
    peak: float = Field(default=0.3, gt=0, lt=1)
    cycle_momentum: bool = True
    floor: float = Field(default=0.0, ge=0)


class GroupSpec(Spec):
    """Optimiser of one group of parameters."""

    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    schedule: ScheduleSpec = ScheduleSpec()

    @model_validator(mode="after")
    def _check(self) -> GroupSpec:
        if self.optimiser != "sgd" and self.momentum:
            raise ValueError(f"optimiser {self.optimiser!r} has no momentum; use beta1 or optimiser 'sgd'")
        return self


class ValidationSpec(Spec):
    """Which training samples are held out.

    ``how``: ``auto`` (official split, else by speaker where the test speakers are unseen, else stratified),
    ``official``, ``speaker``, ``stratified``, or ``none`` (train on everything, the refit of a tuned recipe).
    """

    how: Literal["auto", "official", "speaker", "stratified", "none"] = "auto"
    fraction: float = Field(default=0.2, gt=0, lt=1)


class RateSpec(Spec):
    """Penalty on firing rates outside [lower, upper] spikes a step, squared, mean over neurons."""

    strength: float = Field(default=0.0, ge=0)
    lower: float = Field(default=0.0, ge=0)
    upper: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> RateSpec:
        if self.lower > self.upper:
            raise ValueError("lower must not exceed upper")
        return self


RULE_KEYS: dict[str, tuple[str, ...]] = {
    "bptt": (),
    "sltt": ("two_pass", "chunk_steps", "norm"),
    "sltt-k": ("two_pass", "chunk_steps", "norm", "steps", "rescale"),
    "ottt": ("two_pass", "update"),
    "rtrl": ("two_pass", "update"),
    "e-prop": ("two_pass", "update", "feedback"),
    "eventprop": ("shaping", "clip", "spike_strength", "spike_target", "wake"),
    "ridge": ("ridge",),
}


class RuleSpec(Spec):
    """Options of the learning rule, see :mod:`snnsim.learning`; a rule takes only those that it knows.

    Attributes:
        two_pass: Run a sequence twice where the loss couples its steps: the first pass finds the scores.
        chunk_steps: Steps that are computed together; changes memory and time, not the gradient.
        norm: How ``sltt`` finds the statistics of batch norm: of every ``step``, or ``running`` averages as constants.
        steps: Steps of a sequence that learn in ``sltt-k``, drawn anew for every batch.
        rescale: Multiply the gradient of ``sltt-k`` by all steps / steps that learn.
        update: When an online rule changes the weights: at the end of the ``sequence`` or after every ``step``.
        feedback: How ``e-prop`` sends errors back: by the readout's weights (``symmetric``) or fixed ``random`` ones.
        shaping: How ``eventprop`` weighs time in a ``mean`` readout: ``exp`` (``e^(-t / T)``) or ``none``.
        clip: Largest factor ``1 / (i - v_threshold)`` at a spike in ``eventprop``.
        spike_strength: Regularisation of spike counts in ``eventprop``, per second.
        spike_target: Spikes a neuron and sample that it pulls towards.
        wake: Added in ``eventprop`` to the weights into hidden neurons that were silent for an epoch.
        ridge: Regularisation of ``ridge``, as share of the mean square of a feature.
    """

    two_pass: bool = False
    chunk_steps: int | None = Field(default=None, ge=1)
    norm: Literal["step", "running"] = "step"
    steps: int | None = Field(default=None, ge=1)
    rescale: bool = False
    update: Literal["sequence", "step"] = "sequence"
    feedback: Literal["symmetric", "random"] = "symmetric"
    shaping: Literal["none", "exp"] = "exp"
    clip: float = Field(default=1e3, gt=0)
    spike_strength: float = Field(default=0.0, ge=0)
    spike_target: float = Field(default=14.0, ge=0)
    wake: float = Field(default=0.0, ge=0)
    ridge: float = Field(default=1e-3, ge=0)


class TrainSpec(Spec):
    """The training run.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Samples a batch (over all processes).
        learning: Learning rule, see :mod:`snnsim.learning`.
        rule: Its options.
        loss: ``cross_entropy`` of the reduced scores, or ``per_step`` (mean over steps of the cross-entropy).
        label_smoothing: Part of the target spread over all classes.
        mse_share: Share of the squared error of the scores in ``per_step``.
        mse_target: Its target: ``one`` for every class (a regulariser), or ``one-hot``.
        padding: ``masked`` (a sample's own steps count) or ``counted`` (empty steps count too, as in the published
            delay code, and every sample has the steps of the longest training sample).
        clip_norm: Largest gradient norm, or none.
        checkpoint_steps: Steps of a stretch that the backward pass computes again instead of keeping it, or none.
        formulation: How connections without delays compute: ``auto`` (by how full the data and the spikes of the epoch
            before are), ``dense`` or ``events``. The numbers are the same within rounding.
        weights: Weights, biases and batch norm (the last without weight decay).
        positions: Delay positions.
        neuron: Learned neuron parameters.
        augment: Random changes of training samples.
        validation: What is held out.
        rate: Penalty on firing rates.
        selection: What the best epoch is chosen by, on the validation set.
        eval_batch_size: Samples a batch in evaluation; none means ``batch_size``.
        stdp: Unsupervised STDP of a pool before the first update, or none.
        precision: ``float32``, or ``bf16``: factors of matrix products without delays are rounded to bfloat16, see
            :mod:`snnsim.nn.precision`.
        gradient_cosine: Log, for the first batch of every epoch, the cosine between the rule's gradient and that of
            backpropagation through time; it takes the time and memory of both.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning: Literal["bptt", "sltt", "sltt-k", "ottt", "rtrl", "e-prop", "eventprop", "ridge"] = "bptt"
    rule: RuleSpec = RuleSpec()
    loss: Literal["cross_entropy", "per_step"] = "cross_entropy"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mse_share: float = Field(default=0.0, ge=0, le=1)
    mse_target: Literal["one", "one-hot"] = "one"
    padding: Literal["masked", "counted"] = "masked"
    clip_norm: float | None = Field(default=None, gt=0)
    checkpoint_steps: int | None = Field(default=None, ge=1)
    formulation: Literal["auto", "dense", "events"] = "auto"
    weights: GroupSpec = GroupSpec()
    positions: GroupSpec = GroupSpec(lr=0.1)
    neuron: GroupSpec = GroupSpec()
    augment: AugmentSpec = AugmentSpec()
    validation: ValidationSpec = ValidationSpec()
    rate: RateSpec = RateSpec()
    selection: Literal["accuracy", "loss"] = "accuracy"
    eval_batch_size: int | None = Field(default=None, ge=1)
    stdp: StdpSpec | None = None
    precision: Literal["float32", "bf16"] = "float32"
    gradient_cosine: bool = False

    @model_validator(mode="after")
    def _check(self) -> TrainSpec:
        default = RuleSpec()
        for key in type(default).model_fields:
            if getattr(self.rule, key) != getattr(default, key) and key not in RULE_KEYS[self.learning]:
                known = ", ".join(RULE_KEYS[self.learning]) or "no options"
                raise ValueError(f"learning {self.learning!r} has no {key!r}; it takes {known}")
        if (self.learning == "sltt-k") != (self.rule.steps is not None):
            raise ValueError("rule.steps, the steps that learn, belongs to learning 'sltt-k', which needs it")
        if self.checkpoint_steps is not None and self.learning != "bptt":
            raise ValueError(f"checkpoint_steps belongs to learning 'bptt'; {self.learning!r} keeps no sequence")
        if self.mse_share and self.loss != "per_step":
            raise ValueError("mse_share belongs to loss 'per_step', the loss of single steps")
        return self
