"""Accuracy of a run in the arithmetic of a chip, beside that of its float network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from snnsim.engines.integer import simulate_integer
from snnsim.errors import InputError
from snnsim.limits import Profile, load_profile
from snnsim.quantize import QuantizeOptions, QuantizeReport, quantize
from snnsim.training.evaluation import EvalResult, evaluate_network
from snnsim.training.prepare import pool_units, prepare_split
from snnsim.training.runs import Run, load_run

if TYPE_CHECKING:
    from snnsim.datasets.dataset import Dataset

__all__ = ["IntegerEvalResult", "evaluate_as"]


@dataclass(frozen=True)
class IntegerEvalResult:
    """Outcome of :func:`evaluate_as`.

    Attributes:
        float_result: The frozen float network on the clock engine.
        integer_result: The integer network, on the same samples.
        same_class: Share of the samples that both put into the same class.
        overflow: By population, neuron-steps in which a number left its range.
        report: What quantisation did.
    """

    float_result: EvalResult
    integer_result: EvalResult
    same_class: float
    overflow: dict[str, int]
    report: QuantizeReport


def evaluate_as(
    run: Run | str | Path,
    dataset: Dataset,
    profile: Profile | str | Path,
    *,
    split: Literal["train", "valid", "test"] = "test",
    which: Literal["best", "last"] | None = None,
    options: QuantizeOptions | None = None,
    calibrate: bool = True,
    threads: int | None = None,
) -> IntegerEvalResult:
    """Quantise a run's frozen network for a target and evaluate it as the target computes it.

    A look at the test set is noted in the run's manifest.

    Args:
        run: A run, or the path of its folder.
        dataset: Data set, with the same channels as in training.
        profile: Limits profile with a law, its name, or the path of its JSON file.
        split: Samples to evaluate on.
        which: ``best`` validation epoch or ``last``; none takes the best if there is one.
        options: Choices of the quantisation.
        calibrate: Choose the scales with training samples.
        threads: Threads; default all processors. The result does not depend on it.

    Raises:
        InputError: The target cannot hold the network, or the data do not fit.
    """
    profile = load_profile(profile)
    if isinstance(run, (str, Path)):
        run = load_run(run)
    chosen = which or run.default
    network = run.network(chosen)
    tail = int(network.notes["tail_steps"])
    options = options or QuantizeOptions()
    calibration = None
    if calibrate:
        events = prepare_split(run.recipe, dataset, "train", run.manifest)
        count = min(len(events), options.calibration_samples)
        calibration = pool_units(events.subset(np.arange(count)), run.pool)
    integer, report = quantize(network, profile, options=options, calibration=calibration, tail_steps=tail)
    events = prepare_split(run.recipe, dataset, split, run.manifest)
    if events.n_classes > run.n_classes:
        raise InputError(
            f"data set {dataset.name!r} has {events.n_classes} classes, the run was trained on {run.n_classes}"
        )
    if split == "test":
        run.folder.record_test_run(f"eval, as {profile.name}", [f"{chosen}"])
    exact = evaluate_network(network, events, run.pool, tail)
    start = time.perf_counter()
    pooled = pool_units(events, run.pool)
    binary = profile.graded_input is False
    result = simulate_integer(integer, pooled, tail_steps=tail, threads=threads, binary_inputs=binary)
    if result.logits is None:
        raise InputError("network: expected one with a readout, got none; accuracy needs scores of classes")
    labels = np.asarray(events.labels)
    counts = {name: spikes.n_events for name, spikes in result.spikes.items()}
    steps = float(result.n_steps.sum())
    whole = EvalResult(
        accuracy=float(np.count_nonzero(result.predictions == labels) / max(1, labels.size)),
        loss=float("nan"),
        n_samples=int(labels.size),
        predictions=result.predictions,
        labels=labels,
        logits=result.logits,
        rates=tuple(count / max(1.0, steps * integer.population(name).size) for name, count in counts.items()),
        spikes=int(sum(counts.values())),
        synaptic_operations=float(result.operations.synaptic_operations) / max(1, labels.size),
        engine=f"integer ({profile.name})",
        seconds=time.perf_counter() - start,
    )
    same = float(np.mean(exact.predictions == whole.predictions)) if labels.size else 1.0
    return IntegerEvalResult(exact, whole, same, dict(result.notes["overflow"]), report)
