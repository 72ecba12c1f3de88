"""From a data set and a recipe to what training and evaluation need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from snnsim.datasets.augment import Augment
from snnsim.datasets.batches import BatchStream
from snnsim.datasets.dataset import Dataset, frame
from snnsim.datasets.splits import validation_events
from snnsim.errors import InputError
from snnsim.events import Events, replace_fields
from snnsim.recipes import Recipe
from snnsim.recipes.schema import AugmentSpec

__all__ = ["Prepared", "input_density", "pool_units", "prepare", "prepare_split", "stream"]


@dataclass(frozen=True)
class Prepared:
    """Data of a run, time-aligned, channels not yet pooled.

    Attributes:
        train: Samples to train on.
        valid: Held-out samples, or None.
        test: Test samples, or None.
        split: How the held-out samples were chosen, in words.
        pool: Neighbouring channels summed into one.
        n_units: Channels of the data.
        n_classes: Classes of the data.
        digest: Content hash of the data set.
        name: Name of the data set.
        least_steps: Steps that every sample has at least: with ``padding = "counted"`` those of the longest training
            sample, so that no sample's steps depend on its batch; else 0.
    """

    train: Events
    valid: Events | None
    test: Events | None
    split: str
    pool: int
    n_units: int
    n_classes: int
    digest: str
    name: str
    least_steps: int = 0

    @property
    def n_inputs(self) -> int:
        """Return the channels after pooling."""
        return -(-self.n_units // self.pool)


def _framed(events: Events, recipe: Recipe) -> Events:
    spec = recipe.data
    return frame(events, spec.align, dt=spec.dt, repeat_steps=spec.repeat_steps)


def _aligned(events: Events, recipe: Recipe, n_units: int, least_steps: int) -> Events:
    if len(events) == 0:
        raise InputError("data: expected at least one sample, got an empty split")
    wide = events if events.n_units == n_units else events.widen(n_units)
    framed = _framed(wide, recipe)
    if int(framed.n_steps(recipe.data.dt).min()) >= least_steps:
        return framed
    return replace_fields(framed, duration=np.maximum(framed.duration, least_steps * recipe.data.dt))


def _least_steps(recipe: Recipe, dataset: Dataset) -> int:
    if recipe.train.padding == "masked":
        return 0
    return int(_framed(dataset.train, recipe).n_steps(recipe.data.dt).max(initial=0))


def prepare(recipe: Recipe, dataset: Dataset, seed: int) -> Prepared:
    """Split off the validation samples, align times and count channels and classes.

    Args:
        recipe: Recipe; ``train.validation`` says what is held out.
        dataset: Data set.
        seed: Seed of a stratified split.

    Raises:
        InputError: A split is empty, or samples have no labels.
    """
    parts = [part for part in (dataset.train, dataset.valid, dataset.test) if part is not None]
    n_units = max(part.n_units for part in parts)
    n_classes = max(part.n_classes for part in parts)
    if n_classes < 2:
        raise InputError(f"data set {dataset.name!r}: expected at least two classes, got {n_classes}")
    for part in parts:
        if part.labels.size and part.labels.min() < 0:
            raise InputError(f"data set {dataset.name!r}: a sample has no label; training and evaluation need labels")
    train, valid, split = _hold_out(recipe, dataset, seed)
    least = _least_steps(recipe, dataset)
    return Prepared(
        train=_aligned(train, recipe, n_units, least),
        valid=None if valid is None else _aligned(valid, recipe, n_units, least),
        test=None if dataset.test is None else _aligned(dataset.test, recipe, n_units, least),
        split=split,
        pool=recipe.data.pool(n_units),
        n_units=n_units,
        n_classes=n_classes,
        digest=dataset.digest,
        name=dataset.name,
        least_steps=least,
    )


def _hold_out(recipe: Recipe, dataset: Dataset, seed: int) -> tuple[Events, Events | None, str]:
    spec = recipe.train.validation
    if spec.how == "none":
        return dataset.train, None, "none: all training samples are trained on"
    held = validation_events(dataset, how=spec.how, fraction=spec.fraction, seed=seed)
    return held.train, held.valid, held.description


def prepare_split(recipe: Recipe, dataset: Dataset, split: str, manifest: Mapping[str, Any]) -> Events:
    """Return one split (``train``, ``valid`` or ``test``) as a run has seen its own data.

    Args:
        recipe: Recipe of the run.
        dataset: Data set.
        split: Which samples.
        manifest: Manifest of the run: ``seed`` of the split, ``n_units`` channels, ``least_steps`` of a sample.

    Raises:
        InputError: The data set has no such split, or more channels than the model was trained on.
    """
    n_units = int(manifest["n_units"])
    if split == "test":
        events = dataset.test
    else:
        train, valid, _ = _hold_out(recipe, dataset, int(manifest["seed"]))
        events = train if split == "train" else valid
    if events is None:
        raise InputError(f"data set {dataset.name!r} has no {split} split; choose another with --split")
    if events.n_units > n_units:
        raise InputError(
            f"data set {dataset.name!r} has {events.n_units} channels, the run was trained on {n_units}; "
            "evaluate it on data with the same channels"
        )
    return _aligned(events, recipe, n_units, int(manifest["least_steps"]))


def pool_units(events: Events, pool: int) -> Events:
    """Return events on pooled channels: unit ``u`` becomes ``u // pool``."""
    if pool == 1:
        return events
    return replace_fields(
        events,
        units=np.asarray(events.units // pool, dtype=np.int32),
        n_units=-(-events.n_units // pool),
    )


def _augment(spec: AugmentSpec, n_units: int, padding: str) -> Augment:
    values = spec.model_dump()
    values["channel_shift"] = round(spec.channel_shift * n_units)
    return Augment(**values, keep_duration=padding == "counted")


def stream(
    events: Events,
    recipe: Recipe,
    pool: int,
    tail_steps: int,
    *,
    seed: int,
    training: bool,
    streamed: bool = False,
) -> BatchStream:
    """Return the batches of a split: shuffled and augmented in training, in order otherwise; streamed on request."""
    spec = recipe.train
    size = spec.batch_size if training else (spec.eval_batch_size or spec.batch_size)
    return BatchStream(
        events,
        recipe.data.dt,
        size,
        pool=pool,
        tail_steps=tail_steps,
        seed=seed,
        shuffle=training,
        augment=_augment(spec.augment, events.n_units, spec.padding) if training else None,
        streamed=streamed,
    )


DENSITY_SAMPLES = 64
"""Training samples that tell how full the data are."""


def input_density(data: Prepared, recipe: Recipe, tail_steps: int) -> float:
    """Return the share of (step, channel) pairs with an event, of the first training samples as they are."""
    few = data.train.subset(np.arange(min(DENSITY_SAMPLES, len(data.train))))
    filled = total = 0
    for batch in stream(few, recipe, data.pool, tail_steps, seed=0, training=False).epoch(0):
        filled += int(np.count_nonzero(batch.x))
        total += batch.x.size
    return filled / max(1, total)
