"""Learning-rate range test: one batch a rate, from tiny to diverging (Smith 2017, 2018).

The smoothed loss falls where the rate is useful and rises where it is too high. The model, its optimisers and
all random states are bitwise the same afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from snnsim.datasets.dataset import Dataset
from snnsim.errors import InputError
from snnsim.files import canonical_json, write_text
from snnsim.nn.formulation import set_formulations
from snnsim.nn.masks import mask_gradients
from snnsim.recipes import Recipe, load_recipe
from snnsim.training.checkpoint import restore_state, training_state
from snnsim.training.health import diagnose
from snnsim.training.prepare import prepare
from snnsim.training.schedules import gradient_norm
from snnsim.training.trainer import Trainer

__all__ = ["RangeResult", "find_learning_rate", "lr_range_test", "rates", "sweep"]

SMOOTHING = 0.98
STOP_FACTOR = 4.0

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RangeResult:
    """Table of a range test and what it suggests.

    Attributes:
        table: One dict a step: ``lr``, ``loss``, ``smoothed``, ``gradient_norm``, ``rates``.
        steepest: Rate at the steepest fall of the smoothed loss over log rate, or None if it never falls.
        careful: A tenth of the rate at the lowest smoothed loss, or None if it never falls.
        stopped_at: Rate at which the loss had diverged, or None if it never did.
        warning: Why the test ended early for another reason (a silent or saturated layer), or "".
    """

    table: list[dict[str, Any]]
    steepest: float | None
    careful: float | None
    stopped_at: float | None
    warning: str = ""

    def text(self) -> str:
        """Return a short table and the suggestion."""
        lines = ["      lr      loss  smoothed  gradient  rate a layer"]
        stride = max(1, len(self.table) // 20)
        for row in self.table[::stride]:
            layers = " ".join(f"{rate:.3f}" for rate in row["rates"])
            lines.append(
                f"{row['lr']:8.2e}  {row['loss']:8.4f}  {row['smoothed']:8.4f}  {row['gradient_norm']:8.2e}  {layers}"
            )
        if self.stopped_at is not None:
            lines.append(f"diverged at lr {self.stopped_at:.2e}")
        if self.steepest is None or self.careful is None:
            lines.append("no suggestion: the loss never fell; try more --steps or another --from and --to")
        else:
            lines.append(f"maximum lr: {self.steepest:.2e} (steepest fall), {self.careful:.2e} (lowest loss / 10)")
        return "\n".join(lines)

    def write(self, path: str | Path) -> None:
        """Write the table as JSON lines."""
        write_text(path, "".join(canonical_json(row) + "\n" for row in self.table))


def rates(first: float, last: float, steps: int, *, linear: bool = False) -> Float64:
    """Return the learning rates of a test: geometric, or linear.

    >>> rates(1e-3, 1e-1, 3).round(6).tolist()
    [0.001, 0.01, 0.1]
    """
    if not (0 < first < last and math.isfinite(last)) or steps < 3:
        raise InputError(f"range test: expected 0 < from < to and at least 3 steps, got {first}, {last}, {steps}")
    return np.linspace(first, last, steps) if linear else np.geomspace(first, last, steps)


def sweep(
    step: Callable[[float], dict[str, Any]],
    values: Iterable[float],
    *,
    smoothing: float = SMOOTHING,
    stop_factor: float = STOP_FACTOR,
) -> RangeResult:
    """Run the test: smooth the losses, stop when they diverge, suggest a rate.

    Args:
        step: Does one optimiser step at a rate; returns ``loss`` (before the step), and optionally
            ``gradient_norm``, ``rates`` and ``problem`` (a sentence that ends the test).
        values: Learning rates, rising.
        smoothing: ``m <- smoothing m + (1 - smoothing) loss``, corrected for the start.
        stop_factor: The test stops when m exceeds this multiple of the lowest m, or is not finite.
    """
    table: list[dict[str, Any]] = []
    average, lowest = 0.0, math.inf
    stopped: float | None = None
    warning = ""
    for index, lr in enumerate(values):
        facts = step(float(lr))
        loss = float(facts["loss"])
        average = smoothing * average + (1 - smoothing) * loss
        smoothed = average / (1 - smoothing ** (index + 1))
        if not math.isfinite(smoothed) or smoothed > stop_factor * lowest:
            stopped = float(lr)
            break
        lowest = min(lowest, smoothed)
        table.append(
            {
                "lr": float(lr),
                "loss": loss,
                "smoothed": smoothed,
                "gradient_norm": float(facts.get("gradient_norm", 0.0)),
                "rates": [float(rate) for rate in facts.get("rates", ())],
            }
        )
        if facts.get("problem"):
            warning = f"range test ended at lr {float(lr):.2e}: {facts['problem']}"
            break
    steepest, careful = suggest([row["lr"] for row in table], [row["smoothed"] for row in table])
    return RangeResult(table, steepest, careful, stopped, warning)


def suggest(lr: list[float], smoothed: list[float]) -> tuple[float | None, float | None]:
    """Return the rate of the steepest fall over log rate, and a tenth of the rate of the lowest loss."""
    if len(lr) < 3:
        return None, None
    end = int(np.argmin(smoothed))
    if end == 0:
        return None, None
    slope = np.gradient(np.asarray(smoothed), np.log(lr))
    steepest = int(np.argmin(slope[: end + 1]))
    return lr[steepest], lr[end] / 10


def lr_range_test(
    trainer: Trainer,
    *,
    group: str = "weights",
    first: float = 1e-7,
    last: float = 10.0,
    steps: int = 100,
    linear: bool = False,
) -> RangeResult:
    """Test a range of learning rates on one group of parameters; the trainer is bitwise the same afterwards.

    The other groups train at their recipe's base rate.

    Args:
        trainer: A trainer, fresh or within a run.
        group: ``weights``, ``positions`` or ``neuron``.
        first: Lowest rate.
        last: Highest rate.
        steps: Rates, one batch each.
        linear: Linear instead of geometric steps.

    Raises:
        InputError: The model has no such parameters.
    """
    names = [entry.name for entry in trainer.optimisers]
    if group not in names:
        raise InputError(f"range test: group {group!r} is not trained in this recipe; it has {', '.join(names)}")
    tensors, values = training_state(trainer.model, trainer.optimisers)
    tensors = {name: value.detach().clone() for name, value in tensors.items()}
    epoch, random = trainer.epoch, torch.get_rng_state()
    training = trainer.model.training
    chosen, best, best_test = trainer.formulations, trainer.best, trainer.best_test

    def batches() -> Iterator[Any]:
        while True:
            yield from trainer.batches.epoch(trainer.epoch)
            trainer.epoch += 1

    source = batches()

    def step(lr: float) -> dict[str, Any]:
        for entry in trainer.optimisers:
            rate = lr if entry.name == group else getattr(trainer.recipe.train, entry.name).lr
            for parameters in entry.optimiser.param_groups:
                parameters["lr"] = rate
        sums = trainer.forward_backward(next(source))
        mask_gradients(trainer.model)
        norm = gradient_norm(trainer.model)
        for entry in trainer.optimisers:
            entry.optimiser.step()
        trainer.model.clamp_()
        layers = [value / max(1.0, sums["neuron_steps"]) for value in sums["rates"]]
        problems = diagnose(layers, trainer.sizes)
        return {
            "loss": sums["loss"] / sums["samples"],
            "gradient_norm": norm,
            "rates": layers,
            "problem": problems[0][1] if problems else "",
        }

    try:
        trainer.begin_epoch()
        trainer.prune()
        return sweep(step, rates(first, last, steps, linear=linear))
    finally:
        for entry in trainer.optimisers:
            entry.optimiser.state.clear()
            entry.optimiser.zero_grad(set_to_none=True)
        restore_state(trainer.model, trainer.optimisers, tensors, values)
        trainer.epoch, trainer.best, trainer.best_test = epoch, best, best_test
        trainer.formulations = chosen
        set_formulations(trainer.model, chosen)
        trainer.model.train(training)
        torch.set_rng_state(random)


def find_learning_rate(
    recipe: Recipe | str | Path, dataset: Dataset, *, seed: int = 0, repeats: int = 1, **options: Any
) -> RangeResult:
    """Run the range test on fresh models of a recipe and average over seeds.

    Surrogate gradients are noisy at low firing rates; three repeats smooth the curve.

    Args:
        recipe: Recipe, its name or its file.
        dataset: Data set.
        seed: First seed.
        repeats: Fresh models, with seeds ``seed``, ``seed + 1``, ...
        options: As for :func:`lr_range_test`.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    results = []
    for index in range(repeats):
        trainer = Trainer(recipe, prepare(recipe, dataset, seed + index), seed + index)
        trainer.initialise()
        results.append(lr_range_test(trainer, **options))
    if repeats == 1:
        return results[0]
    length = min(len(result.table) for result in results)
    table = []
    for row in range(length):
        entries = [result.table[row] for result in results]
        mean = {key: float(np.mean([entry[key] for entry in entries])) for key in ("loss", "smoothed", "gradient_norm")}
        layers = np.mean([entry["rates"] for entry in entries], axis=0).tolist()
        table.append({"lr": entries[0]["lr"], **mean, "rates": layers})
    steepest, careful = suggest([row["lr"] for row in table], [row["smoothed"] for row in table])
    stops = [result.stopped_at for result in results if result.stopped_at is not None]
    warnings = [result.warning for result in results if result.warning]
    return RangeResult(table, steepest, careful, min(stops) if stops else None, warnings[0] if warnings else "")
