"""Validation: which training samples are held out to tune on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from snnsim.datasets.dataset import Dataset
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.philox import Stream, uniform

__all__ = ["Holdout", "split_validation", "validation_events"]

Int64 = npt.NDArray[np.int64]
How = Literal["auto", "official", "speaker", "stratified"]


@dataclass(frozen=True)
class Holdout:
    """The two groups of samples of a hold-out.

    Attributes:
        train: Samples to train on.
        valid: Samples to validate on.
        how: ``official``, ``speaker`` or ``stratified``: what was done.
        description: The same in words, for the run's manifest.
    """

    train: Events
    valid: Events
    how: str
    description: str


def validation_events(dataset: Dataset, *, how: How = "auto", fraction: float = 0.2, seed: int = 0) -> Holdout:
    """Return training and validation samples; arguments as in :func:`split_validation`."""
    chosen = _choose(dataset, how)
    train_indices, valid_indices, description = split_validation(dataset, how=chosen, fraction=fraction, seed=seed)
    if chosen == "official":
        assert dataset.valid is not None
        return Holdout(dataset.train, dataset.valid, chosen, description)
    return Holdout(dataset.train.subset(train_indices), dataset.train.subset(valid_indices), chosen, description)


def split_validation(
    dataset: Dataset, *, how: How = "auto", fraction: float = 0.2, seed: int = 0
) -> tuple[Int64, Int64, str]:
    """Choose which training samples are held out.

    - ``official``: the data set's own validation part. All training indices and no validation indices are returned,
      since no training sample leaves: use ``dataset.valid`` (or :func:`validation_events`).
    - ``speaker``: whole speakers leave the training samples, so that validation asks what a test on unseen speakers
      asks. Every class keeps a speaker on either side where the data allow it.
    - ``stratified``: from every class (and speaker) the same part of its recordings leaves; takes of one recording
      stay together.
    - ``auto``: official if there is one, by speaker if the test part has speakers that training lacks, else stratified.

    Args:
        dataset: The data set.
        how: See above.
        fraction: Part of the training samples to hold out, in (0, 1).
        seed: Seed; the choice depends on it and on the sample ids only.

    Returns:
        Indices into ``dataset.train`` to train on, indices to validate on (both int64, ascending), and a sentence.

    Raises:
        InputError: The wanted split does not exist for these data.
    """
    if not 0 < fraction < 1:
        raise InputError(f"fraction: expected a part between 0 and 1, got {fraction}")
    chosen = _choose(dataset, how)
    train = dataset.train
    if chosen == "official":
        if dataset.valid is None:
            raise InputError(f"data set {dataset.name!r} has no official validation part; use speaker or stratified")
        sentence = f"official validation part, {len(dataset.valid)} samples"
        return np.arange(len(train), dtype=np.int64), np.zeros(0, dtype=np.int64), sentence
    if chosen == "speaker":
        held = _speakers_out(dataset, fraction, seed)
        assert train.speakers is not None
        out = np.isin(train.speakers, held)
        listing = ", ".join(str(speaker) for speaker in held)
        sentence = f"by speaker: {len(held)} of {np.unique(train.speakers).size} speakers held out ({listing})"
    else:
        out = _stratified_out(train, fraction, seed)
        sentence = "stratified by class"
        if train.speakers is not None:
            sentence += ", speaker"
        if train.recordings is not None:
            sentence += " and recording"
    count = int(np.count_nonzero(out))
    if count in (0, len(train)):
        raise InputError(
            f"data set {dataset.name!r}: a {chosen} split of {len(train)} samples leaves one side empty; "
            f"choose another fraction"
        )
    sentence += f", {count} of {len(train)} samples, seed {seed}"
    return np.flatnonzero(~out).astype(np.int64), np.flatnonzero(out).astype(np.int64), sentence


def _choose(dataset: Dataset, how: How) -> How:
    if how not in ("auto", "official", "speaker", "stratified"):
        raise InputError(f"validation: expected auto, official, speaker or stratified, got {how!r}")
    if how != "auto":
        return how
    if dataset.valid is not None:
        return "official"
    many = dataset.train.speakers is not None and np.unique(dataset.train.speakers).size > 1
    return "speaker" if many and dataset.unseen_speakers else "stratified"


def _speakers_out(dataset: Dataset, fraction: float, seed: int) -> list[int]:
    train = dataset.train
    if train.speakers is None:
        raise InputError(f"data set {dataset.name!r} does not say who speaks; use a stratified split")
    speakers, inverse = np.unique(train.speakers, return_inverse=True)
    if speakers.size < 2:
        raise InputError(f"data set {dataset.name!r} has one speaker in training; use a stratified split")
    classes, class_of = np.unique(train.labels, return_inverse=True)
    table = np.zeros((speakers.size, classes.size), dtype=np.int64)  # samples of each speaker and class
    np.add.at(table, (inverse, class_of), 1)
    order = np.argsort(uniform(seed, Stream.SPLIT, speakers), kind="stable")
    target = fraction * len(train)
    held: list[int] = []
    covered = np.zeros(classes.size, dtype=np.bool_)

    def keeps_classes(candidate: int) -> bool:
        rest = np.ones(speakers.size, dtype=np.bool_)
        rest[[*held, candidate]] = False
        return bool(np.all(table[rest].sum(axis=0) > 0))

    for i in order:  # first, speakers that bring classes validation does not have yet
        if np.any((table[i] > 0) & ~covered) and keeps_classes(int(i)):
            held.append(int(i))
            covered |= table[i] > 0
    for i in order:  # then, speakers that bring the size nearer to the wanted one
        size = int(table[held].sum())
        nearer = abs(size + table[i].sum() - target) < abs(size - target)
        if int(i) not in held and nearer and keeps_classes(int(i)):
            held.append(int(i))
    if not held:
        held = [int(order[0])]
    return sorted(int(speakers[i]) for i in held)


def _stratified_out(train: Events, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    n = len(train)
    speakers = np.zeros(n, dtype=np.int64) if train.speakers is None else np.asarray(train.speakers)
    recordings = np.asarray(train.sample_ids if train.recordings is None else train.recordings)
    out = np.zeros(n, dtype=np.bool_)
    strata = np.stack([np.asarray(train.labels), speakers], axis=1)
    debt = np.zeros(int(train.labels.max()) + 2 if n else 1)  # rounding carried over within a class
    for label, speaker in np.unique(strata, axis=0):
        members = np.flatnonzero((strata[:, 0] == label) & (strata[:, 1] == speaker))
        takes = np.unique(recordings[members])
        draws = uniform(seed, Stream.SPLIT, takes, 1, int(label) + 1, int(speaker))
        debt[label + 1] += fraction * takes.size
        count = min(int(np.rint(debt[label + 1])), takes.size - 1)
        debt[label + 1] -= count
        chosen = takes[np.argsort(draws, kind="stable")[:count]]
        out[members[np.isin(recordings[members], chosen)]] = True
    return out
