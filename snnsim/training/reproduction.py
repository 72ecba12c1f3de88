"""A recipe over several seeds: mean and spread, beside the published number and its protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from snnsim.datasets.dataset import Dataset
from snnsim.errors import InputError
from snnsim.recipes import Recipe, load_recipe, recipe_from_dict
from snnsim.recipes.schema import PublishedRow
from snnsim.training.finish import TrainResult
from snnsim.training.loop import Callback, train

__all__ = ["PROTOCOLS", "ReproduceResult", "reproduce"]

Protocol = Literal["refit", "holdout"]

PROTOCOLS: dict[str, str] = {
    "refit": "trained on all training samples, last epoch, tested once a seed",
    "holdout": "training samples held out, epoch chosen on them, tested once a seed",
}
"""What each protocol means, in words."""


@dataclass(frozen=True)
class ReproduceResult:
    """Accuracies over seeds.

    Attributes:
        recipe: Name of the recipe.
        data: Name of the data set.
        seeds: Seeds.
        accuracies: Test accuracy of each seed, under the label of the protocol.
        label: ``last-epoch`` or ``best-validation``.
        protocol: ``refit`` or ``holdout``.
        parameters: Trainable parameters of the model on these data.
        n_test: Test samples.
        published: The published row, or None.
        paths: Run folders.
    """

    recipe: str
    data: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    label: str
    protocol: str
    parameters: int
    n_test: int
    published: PublishedRow | None
    paths: tuple[Path, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy over seeds."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (n - 1), or None for one seed."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "recipe": self.recipe,
            "data": self.data,
            "seeds": list(self.seeds),
            "accuracies": list(self.accuracies),
            "mean": self.mean,
            "spread": self.spread,
            "label": self.label,
            "protocol": self.protocol,
            "parameters": self.parameters,
            "published": None if self.published is None else self.published.model_dump(mode="json"),
        }

    def text(self) -> str:
        """Return a few lines for people."""
        spread = "" if self.spread is None else f" +- {100 * self.spread:.2f}"
        each = ", ".join(f"{100 * value:.2f}" for value in self.accuracies)
        lines = [
            f"here       {100 * self.mean:.2f}{spread} % on {self.data} ({self.n_test} test samples), "
            f"{len(self.seeds)} seed(s): {each}",
            f"           {PROTOCOLS[self.protocol]} ({self.label}), {self.parameters} parameters",
        ]
        row = self.published
        if row is None:
            lines.append("published  nothing: this recipe is ours")
        else:
            value = "no figure" if row.accuracy is None else f"{100 * row.accuracy:.2f}"
            spread = "" if row.spread is None else f" +- {100 * row.spread:.2f}"
            count = "" if row.parameters is None else f", {row.parameters} parameters"
            lines.append(f"published  {value}{spread} % on {row.data} ({row.variant}{count}), {row.source}")
            lines.append(f"           {row.protocol}")
            if self.data.lower() != row.data.lower():
                lines.append(f"           another data set: these numbers cannot be compared ({self.data}, {row.data})")
        return "\n".join(lines)


def reproduce(
    recipe: Recipe | str | Path,
    dataset: Dataset,
    out: str | Path,
    *,
    seeds: Iterable[int] = (0, 1, 2),
    protocol: Protocol = "refit",
    callback: Callable[[], Callback] | None = None,
) -> ReproduceResult:
    """Train a recipe once a seed and collect the test accuracies; finished seeds are read, stopped ones continued.

    Args:
        recipe: Recipe, its name or its file. It should have been tuned on held-out training samples.
        dataset: Data set with a test split.
        out: Folder of the runs, ``PROTOCOL-seed-N`` each.
        seeds: Seeds.
        protocol: ``refit`` trains on all training samples and tests the last epoch; ``holdout`` holds samples out
            as the recipe says and tests the epoch that was best on them.
        callback: Makes the listener of each run.

    Raises:
        InputError: No test split, no seeds, or a folder that holds another run.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    if dataset.test is None:
        raise InputError(f"data set {dataset.name!r} has no test split; reproduce needs one")
    chosen = tuple(seeds)
    if not chosen:
        raise InputError("seeds: expected at least one, got none")
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol == "refit":
        values = recipe.to_dict()
        values["train"]["validation"]["how"] = "none"
        recipe = recipe_from_dict(values)
    elif recipe.train.validation.how == "none":
        raise InputError("protocol 'holdout': the recipe's train.validation.how is 'none'; set it to 'auto'")
    results: list[TrainResult] = []
    for seed in chosen:
        folder = Path(out) / f"{protocol}-seed-{seed}"
        listener = None if callback is None else callback()
        results.append(train(recipe, dataset, folder, seed=seed, resume=True, callback=listener))
    accuracies = [result.accuracy for result in results]
    from snnsim.training.runs import load_run

    return ReproduceResult(
        recipe=recipe.name if recipe.variant is None else f"{recipe.name}:{recipe.variant}",
        data=dataset.name,
        seeds=chosen,
        accuracies=tuple(float(value) for value in accuracies if value is not None),
        label=results[0].label,
        protocol=protocol,
        parameters=int(load_run(results[0].path).manifest["parameters"]),
        n_test=results[0].n_test,
        published=recipe.published_row(),
        paths=tuple(result.path for result in results),
    )
