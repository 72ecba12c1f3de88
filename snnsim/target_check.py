"""Does a network fit a target? A check of a float network against a limits profile, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.limits import Profile, load_profile
from snnsim.network import Network, Population
from snnsim.neuron_base import StepParameters
from snnsim.quantize_delays import DelayRange, plan_delays

__all__ = ["Finding", "LayerNeeds", "TargetCheck", "check", "delay_range", "kind_of", "near_grid"]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

KINDS = {"IF": "if", "LIF": "lif", "CubaLIF": "cubalif", "LI": "li", "CubaLI": "cubali"}
SHOWN = 5
"""Places that a finding names."""


@dataclass(frozen=True)
class Finding:
    """One thing that the target cannot hold, or holds in another way.

    Attributes:
        subject: Which figure of the profile it is about.
        layer: Name of the population or projection, empty for the whole network.
        what: What the network has and what the target holds.
        remedy: What to change, empty if nothing needs to.
        indices: The first few neurons, or (target, source) of synapses.
        count: How many there are in all.
    """

    subject: str
    layer: str
    what: str
    remedy: str = ""
    indices: tuple[Any, ...] = ()
    count: int = 0

    def sentence(self) -> str:
        """Return it as one line."""
        where = f"{self.layer}: " if self.layer else ""
        places = ""
        if self.indices:
            named = ", ".join(str(item) for item in self.indices)
            places = f" (first: {named})" if self.count > len(self.indices) else f" ({named})"
        return f"{where}{self.what}{places}" + (f": {self.remedy}" if self.remedy else "") + "."


@dataclass(frozen=True)
class LayerNeeds:
    """What a population needs.

    Attributes:
        population: Name.
        neurons: Size.
        synapses: Synapses into it.
        fan_in: Most synapses into one of its neurons.
        fan_out: Most synapses out of one of its neurons.
        cores: Cores for it alone, or None where the profile does not say.
    """

    population: str
    neurons: int
    synapses: int
    fan_in: int
    fan_out: int
    cores: int | None


@dataclass(frozen=True)
class TargetCheck:
    """The outcome of :func:`check`.

    Attributes:
        profile: Name of the profile.
        violations: What the target cannot hold.
        changes: What it holds in another way; quantisation does these.
        layers: What every population needs.
        latency: By population, steps by which its spikes come later.
        cores: Cores in all, populations kept apart, or None where the profile does not say.
        unchecked: Figures that the profile does not know or that have no limit.
        remarks: What the profile says beside its figures.
    """

    profile: str
    violations: tuple[Finding, ...]
    changes: tuple[Finding, ...]
    layers: tuple[LayerNeeds, ...]
    latency: dict[str, int]
    cores: int | None
    unchecked: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing is violated."""
        return not self.violations

    def sentences(self) -> list[str]:
        """Return the outcome as text, one line each."""
        lines = [f"{'fits' if self.fits else 'does NOT fit'} {self.profile}"]
        lines += [f"cannot: {item.sentence()}" for item in self.violations]
        lines += [f"changes: {item.sentence()}" for item in self.changes]
        for layer in self.layers:
            cores = "" if layer.cores is None else f", {layer.cores} core{'s' if layer.cores != 1 else ''}"
            lines.append(
                f"needs: {layer.population}: {layer.neurons} neurons, {layer.synapses} synapses, "
                f"fan-in up to {layer.fan_in}{cores}."
            )
        if self.cores is not None:
            lines.append(f"needs: {self.cores} core{'s' if self.cores != 1 else ''} in all, populations kept apart.")
        if self.unchecked:
            lines.append(f"not checked (no limit, or not known): {', '.join(self.unchecked)}.")
        return lines + [f"note: {item}" for item in self.remarks]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "profile": self.profile,
            "fits": self.fits,
            "violations": [vars(item) | {"sentence": item.sentence()} for item in self.violations],
            "changes": [vars(item) | {"sentence": item.sentence()} for item in self.changes],
            "layers": [vars(item) for item in self.layers],
            "latency": self.latency,
            "cores": self.cores,
            "unchecked": list(self.unchecked),
            "remarks": list(self.remarks),
        }


def kind_of(population: Population) -> str | None:
    """Return the kind of a population's neurons in a profile's words, or None for a law that no profile has."""
    return KINDS.get(population.neuron.kind)


def delay_range(profile: Profile) -> DelayRange:
    """Return the delays that a profile's target holds."""
    return DelayRange(
        from_input=profile.input_delay or 0,
        least=profile.min_delay or 0,
        greatest=profile.max_delay,
        each=profile.delay_per != "none",
    )


def near_grid(decay: Floats, profile: Profile) -> Floats:
    """Return the decays per step that the target has nearest to the given ones (the same where it has no grid)."""
    if profile.decay_grid == "pow2":
        with np.errstate(divide="ignore"):
            exact = -np.log2(np.maximum(1 - decay, 2.0**-15))
        around = np.stack([1 - 2.0 ** -np.clip(f(exact), 0, 15) for f in (np.floor, np.ceil)])
        best = np.argmin(np.abs(around - decay), axis=0)
        return np.asarray(np.take_along_axis(around, best[None], axis=0)[0])
    if profile.decay_grid == "linear" and profile.decay_bits:
        unity = 2.0**profile.decay_bits
        return np.asarray(np.rint(decay * unity) / unity)
    return decay


def _some(places: npt.NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(item) for item in places[:SHOWN])


def _differing(values: Floats) -> Integers:
    """Return the neurons whose value is not that of the first, within rounding."""
    return np.flatnonzero(~np.isclose(values, values[0], rtol=1e-12, atol=0))


class _Checker:
    def __init__(self, network: Network, profile: Profile) -> None:
        self.network = network
        self.profile = profile
        self.violations: list[Finding] = []
        self.changes: list[Finding] = []
        self.synapses = [item.synapses(network.dt) for item in network.projections]

    def cannot(self, subject: str, layer: str, what: str, remedy: str, at: Any = (), count: int | None = None) -> None:
        places = tuple(at[:SHOWN]) if isinstance(at, (list, tuple)) else _some(at)
        self.violations.append(Finding(subject, layer, what, remedy, places, len(at) if count is None else count))

    def moved(self, subject: str, layer: str, what: str, remedy: str = "", at: Any = ()) -> None:
        self.changes.append(Finding(subject, layer, what, remedy, _some(np.asarray(at, dtype=np.int64)), len(at)))

    def neurons(self, item: Population) -> None:
        """Check the law of a population's neurons."""
        profile, name = self.profile, item.name
        kind = kind_of(item)
        known = profile.neurons or tuple(KINDS.values())
        if kind is None:
            self.cannot(
                "neurons", name, f"{item.neuron.kind} is not a neuron of the target", "train with LIF or CubaLIF"
            )
            return
        allowed = kind in known or (kind == "if" and "lif" in known)
        step = item.neuron.step(item.size, self.network.dt)
        if kind == "cubalif" and not allowed and "lif" in known and not step.alpha.any():
            allowed = True
        if not allowed:
            self.cannot(
                "neurons", name, f"{item.neuron.kind} is not a neuron of the target", self._instead(kind, known)
            )
        if item.start_step or item.stop_step is not None:
            self.cannot(
                *("start_step", name, f"starts at step {item.start_step} or stops before the end"),
                "a target runs from the first step to the last; train with empty steps appended to the input instead",
            )
        if item.neuron.spiking:
            self._reset(name, step)
            self._threshold(name, step)
        self._decays(name, step, kind)

    @staticmethod
    def _instead(kind: str, known: tuple[str, ...]) -> str:
        if kind in ("li", "cubali"):
            return "read the scores from spikes: train with a spiking readout"
        if kind == "lif" and "cubalif" in known:
            return "a synaptic current always exists there; train with CubaLIF"
        if kind == "cubalif" and "lif" in known:
            return "it has no synaptic current; train with LIF"
        if kind in ("lif", "cubalif") and "if" in known:
            return "it has no leak; train with IF"
        return f"train with one of {', '.join(known)}"

    def _reset(self, name: str, step: StepParameters) -> None:
        profile = self.profile
        kind = "zero" if step.reset_zero else "subtract"
        if profile.reset is not None and kind not in profile.reset:
            other = "zero" if kind == "subtract" else "subtract"
            self.cannot(
                *("reset", name, f"resets by {kind}, the target only by {' or '.join(profile.reset)}"),
                f'another reset is another network: train with reset = "{other}"',
            )
            return
        if step.reset_zero and profile.reset_value is False and (at := np.flatnonzero(step.v_reset)).size:
            what = f"reset values up to {np.abs(step.v_reset).max():.4g}, the target resets to 0"
            self.cannot("reset_value", name, what, "train with v_reset = 0", at)
        unequal = np.flatnonzero(step.reset_amount != step.v_threshold)
        if not step.reset_zero and profile.reset_amount is False and unequal.size:
            what = "subtracts another amount than the threshold"
            self.cannot("reset_amount", name, what, "train without a reset_amount", unequal)
        if profile.refractory is False and (at := np.flatnonzero(step.refractory_steps)).size:
            what = f"refractory for up to {int(step.refractory_steps.max())} steps, the target's neurons are not"
            self.cannot("refractory", name, what, "train with t_ref = 0", at)

    def _threshold(self, name: str, step: StepParameters) -> None:
        profile = self.profile
        if (at := np.flatnonzero(step.v_threshold <= 0)).size and profile.law in ("loihi2", "xylo"):
            self.cannot("threshold", name, "thresholds must be positive", "retrain with positive thresholds", at)
        if profile.threshold_per == "population" and (at := _differing(step.v_threshold)).size:
            self.moved(
                *("threshold_per", name, "thresholds differ, the target has one a population"),
                *("incoming weights and biases are scaled neuron by neuron, which is exact", at),
            )
        ours = ">" if step.strict else ">="
        if profile.comparator is not None and profile.comparator != ours:
            what = f"fires at v {ours} threshold, the target at v {profile.comparator} threshold"
            self.moved("comparator", name, what, "ties differ")

    def _decays(self, name: str, step: StepParameters, kind: str) -> None:
        profile = self.profile
        given = [("beta", step.beta)] + ([("alpha", step.alpha)] if step.current else [])
        if profile.decay_grid == "none":
            if kind != "if" and kind in (profile.neurons or ()) and (at := np.flatnonzero(step.beta < 1)).size:
                self.cannot("decay_grid", name, "leaks, the target's neurons do not", "train with IF", at)
            return
        for word, decay in given:
            if profile.decay_per == "population" and (at := _differing(decay)).size:
                self.cannot(
                    *("decay_per", name, f"{word} differs from neuron to neuron, the target has one a population"),
                    *("train one time constant a layer, or quantise with decays = 'mean'", at),
                )
            moved = near_grid(decay, profile)
            error = np.abs(moved - decay)
            if error.max() > 0:
                worst = int(np.argmax(error))
                self.moved(
                    *("decay_grid", name, f"{word} moves by up to {error.max():.2g} to the target's grid"),
                    *(f"neuron {worst}: {decay[worst]:.5g} becomes {moved[worst]:.5g}",),
                )

    def delays(self) -> dict[str, int]:
        """Check delays and return the latencies."""
        network, profile = self.network, self.profile
        limits = delay_range(profile)
        if profile.min_delay is None and profile.max_delay is None and limits.each:
            return {}
        plan = plan_delays(network, limits)
        for number, item in enumerate(network.projections):
            places = plan.outside[number]
            if not places.size:
                continue
            low, high = plan.limit[number]
            sources = np.repeat(np.arange(item.shape[1]), np.diff(self.synapses[number].indptr))
            ends = [(int(self.synapses[number].target[k]), int(sources[k])) for k in places[:SHOWN]]
            if not limits.each:
                what = f"{places.size} of {item.n_synapses} synapses have delays of their own, the target has none"
                remedy = "train without delays"
            elif plan.longest[number] > (high if high is not None else plan.longest[number]):
                most = int(high or 0) - plan.shift[number]
                what = f"{places.size} delays of up to {plan.longest[number]} steps there, the target has up to {high}"
                remedy = f"train with delays of at most {most} steps, or quantise with delays = 'clamp'"
            else:
                what = f"{places.size} delays are shorter than the {low} step(s) that the target needs round a loop"
                remedy = "train its recurrent connections with longer delays"
            self.cannot("max_delay" if limits.each else "delay_per", item.name, what, remedy, ends, int(places.size))
        if profile.delay_per == "axon":
            self._axons()
        for name, steps in plan.latency.items():
            if steps:
                later = "later" if steps > 0 else "earlier"
                self.moved("layer_latency", name, f"spikes come {abs(steps)} step{'s' * (abs(steps) != 1)} {later}")
        return plan.latency

    def _axons(self) -> None:
        """Refuse delays that differ among the synapses of a source."""
        for item, synapses in zip(self.network.projections, self.synapses, strict=True):
            sources = np.repeat(np.arange(item.shape[1]), np.diff(synapses.indptr))
            first = synapses.delay_steps[synapses.indptr[sources]]
            at = np.unique(sources[synapses.delay_steps != first])
            if at.size:
                what = "sources have several delays, the target has one a source"
                self.cannot("delay_per", item.name, what, 'train with delays per = "source"', at)

    def loops(self) -> None:
        """Refuse circles of populations where the target has none."""
        if self.profile.recurrent is not False:
            return
        reach: dict[str, set[str]] = {item.name: set() for item in self.network.populations}
        for _ in reach:
            for item in self.network.projections:
                if item.source in reach:
                    reach[item.source] |= {item.target} | reach[item.target]
        for name, others in reach.items():
            if name in others:
                self.cannot("recurrent", name, "feeds itself, the target has no recurrence", "train without recurrence")

    def sizes(self) -> tuple[list[LayerNeeds], int | None]:
        """Check numbers of neurons and synapses; return what every population needs, and cores in all."""
        network, profile = self.network, self.profile
        fan_in = {item.name: np.zeros(item.size, np.int64) for item in network.populations}
        fan_out = {name: np.zeros_like(counts) for name, counts in fan_in.items()}
        fan_out |= {item.name: np.zeros(item.size, np.int64) for item in network.inputs}
        for item, synapses in zip(network.projections, self.synapses, strict=True):
            fan_in[item.target] += np.bincount(synapses.target, minlength=item.shape[0])
            fan_out[item.source] += np.diff(synapses.indptr)
        layers: list[LayerNeeds] = []
        for population in network.populations:
            name, size = population.name, population.size
            inward = fan_in[name]
            for word, counts in (("in", inward), ("out", fan_out[name])):
                limit = getattr(profile, f"max_fan_{word}")
                if limit is not None and (at := np.flatnonzero(counts > limit)).size:
                    what = f"{at.size} neurons have a fan-{word} of up to {counts.max()}, the target {limit}"
                    self.cannot(f"max_fan_{word}", name, what, "prune synapses or train a sparser layer", at)
            cores = None
            if profile.neurons_per_core is not None:
                cores = -(-size // profile.neurons_per_core)
            if profile.synapses_per_core is not None:
                cores = max(cores or 0, -(-int(inward.sum()) // profile.synapses_per_core))
                if (at := np.flatnonzero(inward > profile.synapses_per_core)).size:
                    what = f"a neuron has {inward.max()} synapses, a core holds {profile.synapses_per_core}"
                    self.cannot("synapses_per_core", name, what, "prune synapses", at)
            outward = int(fan_out[name].max(initial=0))
            layers.append(LayerNeeds(name, size, int(inward.sum()), int(inward.max(initial=0)), outward, cores))
        total = None if any(item.cores is None for item in layers) else sum(item.cores or 0 for item in layers)
        self._totals(layers, total)
        return layers, total

    def _totals(self, layers: list[LayerNeeds], cores: int | None) -> None:
        network, profile = self.network, self.profile
        ends = self._outputs()
        neurons = sum(item.neurons for item in layers)
        outputs = sum(item.size for item in network.populations if item.name in ends)
        counts = {
            "max_inputs": (sum(item.size for item in network.inputs), "input channels", "pool channels together"),
            "max_outputs": (outputs, f"output neurons ({', '.join(ends)})", "train fewer classes"),
            "max_hidden": (neurons - outputs, "neurons beside the outputs", "train smaller layers"),
            "max_neurons": (neurons, "neurons", "train smaller layers"),
            "max_synapses": (sum(item.synapses for item in layers), "synapses", "prune synapses"),
        }
        for name, (count, word, remedy) in counts.items():
            limit = getattr(profile, name)
            if limit is not None and count > limit:
                self.cannot(name, "", f"{count} {word}, the target has {limit}", remedy)
        if cores is not None and profile.cores is not None and cores > profile.cores:
            worst = max(layers, key=lambda item: item.cores or 0)
            what = f"needs {cores} cores, the target has {profile.cores}"
            self.cannot("cores", "", what, f"{worst.population} alone needs {worst.cores}; prune or shrink it")

    def _outputs(self) -> list[str]:
        """Return the populations whose activity is taken off the chip."""
        if self.network.readout is not None:
            return [self.network.readout.population]
        sources = {item.source for item in self.network.projections if item.n_synapses}
        return [item.name for item in self.network.populations if item.name not in sources]

    def weights(self) -> Iterator[Finding]:
        """Yield what happens to the weights."""
        profile = self.profile
        if profile.weight_bits is None:
            return
        step = "even numbers" if profile.weight_even else "whole numbers"
        for item in self.network.projections:
            if item.n_synapses:
                yield Finding("weight_bits", item.name, f"weights become {step} of {profile.weight_bits} bits")


def check(network: Network, profile: Profile | str | Path) -> TargetCheck:
    """Check a network against the limits of a target, without changing or writing anything.

    Args:
        network: A frozen float network.
        profile: A profile, the name of a built-in one, or the path of a JSON file.

    Raises:
        InputError: There is no such profile.
    """
    profile = load_profile(profile)
    checker = _Checker(network, profile)
    for item in network.populations:
        checker.neurons(item)
    latency = checker.delays()
    checker.loops()
    layers, cores = checker.sizes()
    checker.changes += checker.weights()
    if profile.graded_input is False:
        what = "several events of a channel in one step act as one on the target"
        checker.moved("graded_input", "", what)
    return TargetCheck(
        profile=profile.name,
        violations=tuple(checker.violations),
        changes=tuple(checker.changes),
        layers=tuple(layers),
        latency=latency,
        cores=cores,
        unchecked=tuple(profile.unchecked()),
        remarks=profile.remarks,
    )
