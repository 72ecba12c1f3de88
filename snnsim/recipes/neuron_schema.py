"""What a recipe may say about the neurons of the hidden layers: their kind, their numbers, what of them learns."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from snnsim.recipes.spec import Spec

__all__ = ["NeuronSpec", "SurrogateSpec", "beta_of"]

SURROGATE_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "ATan": ("alpha",),
    "Boxcar": ("width",),
    "Exponential": ("alpha", "c"),
    "MultiGaussian": ("sigma", "h", "s", "scale"),
    "Sigmoid": ("alpha",),
    "SuperSpike": ("slope",),
    "Triangle": ("alpha", "scale"),
}


class SurrogateSpec(Spec):
    """Surrogate derivative of the spike: a name of :mod:`snnsim.nn.surrogates` and the parameters it has.

    What is not given is the surrogate's own default.
    """

    name: Literal["ATan", "Boxcar", "Exponential", "MultiGaussian", "Sigmoid", "SuperSpike", "Triangle"] = "ATan"
    alpha: float | None = Field(default=None, gt=0)
    slope: float | None = Field(default=None, gt=0)
    sigma: float | None = Field(default=None, gt=0)
    h: float | None = Field(default=None, gt=0)
    s: float | None = Field(default=None, gt=0)
    c: float | None = Field(default=None, gt=0)
    width: float | None = Field(default=None, gt=0)
    scale: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> SurrogateSpec:
        allowed = SURROGATE_ARGUMENTS[self.name]
        for key in sorted(self.model_fields_set - {"name"}):
            if getattr(self, key) is not None and key not in allowed:
                raise ValueError(f"{self.name} has no parameter {key!r}; it takes {', '.join(allowed)}")
        return self

    def arguments(self) -> dict[str, float]:
        """Return the given parameters by name, ready for the surrogate's constructor."""
        values = {key: getattr(self, key) for key in SURROGATE_ARGUMENTS[self.name]}
        return {key: value for key, value in values.items() if value is not None}


def beta_of(tau: float, law: str, dt: float) -> float:
    """Return the decay per step of a time constant by the law ``exact`` or ``euler``."""
    return 1.0 - dt / tau if law == "euler" else float(np.exp(-dt / tau))


Learned = (
    Literal["tau_mem", "tau_syn", "tau_adapt", "v_threshold", "v_reset"]
    | Literal["adapt_v", "adapt_spike", "adapt_threshold"]
    | Literal["release", "amplitude", "temperature", "drive_step"]
    | Literal["theta_v", "theta_u", "theta_r", "theta_s", "tau_exc", "tau_inh", "e_exc", "e_inh"]
)

NO_MEMORY = frozenset({"tau_mem", "tau_law", "v_reset", "reset", "detach_reset", "t_ref", "heterogeneous"})
"""Keys that say nothing about neurons without memory."""

THETAS = {"theta_v", "theta_u", "theta_r", "theta_s"}
LIQUID = {"solver", "substeps", "conductance", "tau_exc", "tau_inh", "e_exc", "e_inh"}


class NeuronSpec(Spec):
    """Neurons of the hidden layers.

    Attributes:
        kind: ``lif`` (delta synapses), ``cubalif`` (exponential current), ``adlif`` (adaptation on the
            membrane), ``alif`` (adaptation on the threshold), ``meta`` (LIF with random synapses and a soft
            threshold), ``levy-baxter`` (random synapses, no memory), ``meta-dynamic`` (quadratic membrane, Cheng et al.
            2020), ``liquid`` (excitatory and inhibitory conductances without delays: spiking liquid time-constant
            neurons).
        tau_mem: Membrane time constant, seconds; the unit of time of ``meta-dynamic``.
        tau_law: ``exact`` means ``beta = exp(-dt/tau_mem)``; ``euler`` means ``beta = 1 - dt/tau_mem``, the
            convention of the published delay networks.
        tau_syn: Synaptic time constant, seconds (``cubalif``; of both receptors of ``liquid``).
        tau_adapt: Time constant of the adaptation variable, seconds (``adlif``, ``alif``).
        adapt_v: Coupling from the membrane to adaptation, per step (``adlif``).
        adapt_spike: Jump of adaptation at a spike (``adlif``, ``alif``).
        adapt_threshold: Factor from adaptation to the threshold (``alif``).
        solver: ``exact`` or ``fused`` step of ``liquid``.
        substeps: Parts of a step of ``liquid``.
        conductance: Initial excitatory conductances of ``liquid`` are uniform up to this over the number of inputs,
            the inhibitory ones up to half of it.
        types: Number of neuron types of ``meta-dynamic`` that share their thetas; none means one a layer.
        v_threshold: Firing threshold.
        v_reset: Value after a ``zero`` reset.
        reset: ``zero`` or ``subtract``.
        detach_reset: Whether the reset is left out of the gradient.
        t_ref: Absolute refractory time, seconds.
        release: Probability that a synapse releases, in (0, 1] (``meta``, ``levy-baxter``, like ``drive_step`` and
            ``mode``).
        amplitude: Spread of a release's amplitude around 1 (``meta``).
        temperature: Softness of the threshold (``meta``); above 0 it takes the place of the surrogate.
        drive_step: Added to the membrane every step.
        mode: ``stochastic`` draws random numbers, in training and in evaluation; ``mean`` computes with expectations.
        learn: Parameters that are trained (group ``neuron``).
        learn_per: Whether a trained parameter is one number a ``layer`` (where the initial values are equal), or one a
            ``neuron``.
        heterogeneous: Distribution of initial time constants over the neurons, or none.
    """

    kind: Literal["lif", "cubalif", "adlif", "alif", "meta", "levy-baxter", "meta-dynamic", "liquid"] = "lif"
    tau_mem: float = Field(default=0.02, gt=0)
    tau_law: Literal["exact", "euler"] = "exact"
    tau_syn: float = Field(default=0.005, gt=0)
    tau_adapt: float = Field(default=0.1, gt=0)
    adapt_v: float = 0.0
    adapt_spike: float = 0.0
    adapt_threshold: float = Field(default=0.0, ge=0)
    solver: Literal["exact", "fused"] = "exact"
    substeps: int = Field(default=1, ge=1, le=1000)
    conductance: float = Field(default=4.0, gt=0)
    types: int | None = Field(default=None, ge=1)
    v_threshold: float = Field(default=1.0, gt=0)
    v_reset: float = 0.0
    reset: Literal["zero", "subtract"] = "zero"
    detach_reset: bool = True
    t_ref: float = Field(default=0.0, ge=0)
    release: float = Field(default=1.0, gt=0, le=1)
    amplitude: float = Field(default=0.0, ge=0, le=1)
    temperature: float = Field(default=0.0, ge=0)
    drive_step: float = 0.0
    mode: Literal["stochastic", "mean"] = "stochastic"
    learn: list[Learned] = Field(default_factory=list)
    learn_per: Literal["layer", "neuron"] = "layer"
    heterogeneous: Literal["gamma", "uniform"] | None = None
    surrogate: SurrogateSpec = SurrogateSpec(name="ATan", alpha=5.0)

    def beta(self, dt: float) -> float:
        """Return the membrane decay per step of ``dt`` seconds."""
        return beta_of(self.tau_mem, self.tau_law, dt)

    @model_validator(mode="after")
    def _check(self) -> NeuronSpec:
        fields = type(self).model_fields
        given = {key for key in self.model_fields_set if getattr(self, key) != fields[key].default}
        allowed = {"lif": set(), "cubalif": {"tau_syn"}, "adlif": {"tau_adapt", "adapt_v", "adapt_spike"}}
        allowed["alif"] = {"tau_adapt", "adapt_spike", "adapt_threshold"}
        allowed["levy-baxter"] = {"release", "drive_step", "mode"}
        allowed["meta"] = allowed["levy-baxter"] | {"amplitude", "temperature"}
        allowed["meta-dynamic"] = THETAS | {"types"}
        allowed["liquid"] = LIQUID | {"tau_syn"}
        special = {"tau_syn", "tau_adapt", "adapt_v", "adapt_spike", "adapt_threshold", "types"} | THETAS | LIQUID
        special |= allowed["meta"]
        if self.kind == "levy-baxter":
            special |= NO_MEMORY
        wrong = sorted((given | set(self.learn)) & (special - allowed[self.kind]))
        if wrong:
            raise ValueError(f"neuron kind {self.kind!r} has no {wrong[0]!r}; remove it or change kind")
        if len(set(self.learn)) != len(self.learn):
            raise ValueError("learn names a parameter twice")
        if "v_reset" in self.learn and self.reset == "subtract":
            raise ValueError("learn: v_reset does nothing with reset 'subtract'; use reset 'zero'")
        if self.learn_per == "neuron" and not self.learn:
            raise ValueError("learn_per: expected parameters in learn that it could be for, got none")
        self._check_special()
        if self.reset == "zero" and self.v_reset >= self.v_threshold:
            raise ValueError("v_reset must lie below v_threshold")
        if self.kind == "alif" and self.adapt_threshold == 0:
            raise ValueError("neuron kind 'alif' needs adapt_threshold > 0, else use 'adlif'")
        if self.tau_law == "euler" and self.kind == "cubalif":
            raise ValueError("tau_law 'euler' is not defined for 'cubalif'; use 'exact'")
        return self

    def _check_special(self) -> None:
        """Refuse what the kinds with a law of their own do not have."""
        if self.kind not in ("meta-dynamic", "liquid"):
            return
        fields, keys = type(self).model_fields, ["tau_law", "reset", "heterogeneous"]
        if self.kind == "meta-dynamic":
            keys += ["v_reset", "learn_per"]  # what differs from neuron to neuron is a matter of types
        wrong = [key for key in keys if getattr(self, key) != fields[key].default]
        wrong += sorted(set(self.learn) & ({"tau_mem", "v_threshold"} if self.kind == "meta-dynamic" else {"tau_syn"}))
        if wrong:
            raise ValueError(f"neuron kind {self.kind!r} cannot change {wrong[0]!r}; remove it")
