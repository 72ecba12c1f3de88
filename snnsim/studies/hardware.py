"""The study of hardware targets: one trained network with delays in the integers of every target, before and after
training on its grid, and every export with its proof.

Two laws are trained for, ``loihi2`` and ``fixed8``. A target takes the network that was trained for its limits profile;
targets without one take the float network. Xylo, which has no delays and no integrators, gets a network of its own
(:mod:`snnsim.studies.hardware_xylo`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snnsim.datasets.dataset import Dataset
from snnsim.energy import estimate_energy
from snnsim.engines import simulate
from snnsim.engines.integer import simulate_integer
from snnsim.errors import InputError, MissingLibraryError
from snnsim.events import Events
from snnsim.export import TARGETS, export_network, prove_export
from snnsim.limits import load_profile
from snnsim.metrics import Operations, footprint
from snnsim.network import Network
from snnsim.quantize import check, quantize
from snnsim.recipes import Recipe, load_recipe
from snnsim.training import load_run, train
from snnsim.training.integer_evaluation import evaluate_as
from snnsim.training.prepare import pool_units, prepare_split
from snnsim.training.runs import Run

if TYPE_CHECKING:
    from snnsim.integer_network import IntegerNetwork

__all__ = ["LAWS", "QUICK", "Sizes", "accuracy_of", "base_recipe", "energy_table", "export_part", "trained"]

LAWS = ("loihi2", "fixed8")
"""Limits profiles that a network is fine-tuned for."""

ENERGY = {"loihi2": "loihi", "xylo": "cmos45-int32", "fixed": "cmos45-int32"}
"""Table of :data:`snnsim.energy.TABLES` by law; float networks take ``cmos45-float32``."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the study.

    Attributes:
        hidden: Neurons of the hidden layers.
        epochs: Of the float network.
        fine: Of training on a grid.
        learning_rate: Of training on a grid.
        samples: Training samples that a proof runs.
        generated: Whether a proof whose samples hold too few spikes to count is repeated with generated input.
    """

    hidden: tuple[int, ...] = (128, 128)
    epochs: int = 60
    fine: int = 10
    learning_rate: float = 2e-5
    samples: int = 40
    generated: bool = True


QUICK = Sizes(hidden=(16, 16), epochs=2, fine=1, samples=8, generated=False)
"""For a trial of the command; nothing may be claimed from it."""


def base_recipe(sizes: Sizes, data: Dataset) -> Recipe:
    """Return the recipe of the float network: LIF, reset to zero, a delay of up to 25 steps for every synapse."""
    changes = [
        f"model.hidden={list(sizes.hidden)}",
        f"train.epochs={sizes.epochs}",
        f"data.channels={_channels(data, 70)}",
        "model.dropout=0.1",
        "model.neuron.surrogate.alpha=2.0",
        "train.label_smoothing=0.1",
        "train.augment.drop=0.2",
        "train.augment.time_stretch=0.2",
    ]
    return load_recipe("spoken-digits", changes)


def _channels(data: Dataset, most: int) -> int:
    """Return the most channels up to ``most`` into which the data's channels pool evenly."""
    return next(count for count in range(min(most, data.n_units), 0, -1) if data.n_units % count == 0)


def fine_recipe(run: Run, profile: str, sizes: Sizes) -> Recipe:
    """Return the recipe that goes on from a run on the grid of ``profile``.

    The validation loss chooses the epoch: so few held-out samples tell little by their accuracy.
    """
    return load_recipe(
        str(run.path / "recipe.json"),
        [
            f'quantize.profile="{profile}"',
            f"train.epochs={sizes.fine}",
            f"train.weights.lr={sizes.learning_rate}",
            "train.selection=loss",
        ],
    )


def trained(
    recipe: Recipe, data: Dataset, folder: Path, *, seed: int, start: Run | None = None, told: Callable[[str], None]
) -> Run:
    """Return the run in ``folder``; trained now, continued or as it is.

    Raises:
        InputError: The folder holds a run of another recipe, data set or seed.
    """
    exists = (folder / "recipe.json").is_file()
    if exists:
        run = load_run(folder)
        if run.recipe != recipe or run.manifest["seed"] != seed:
            raise InputError(f"{folder}: holds a run of another recipe or seed; choose another --out")
        if run.result is not None:
            return run
    told(f"training {folder.name}")
    train(recipe, data, folder, seed=seed, start=None if exists else start, resume=exists)
    return load_run(folder)


def accuracy_of(base: Run, data: Dataset, profile: str, folder: Path, sizes: Sizes, **settings: Any) -> dict[str, Any]:
    """Return test accuracies: float, its integers, and the integers after training on the grid.

    The validation set chooses the epoch of both trainings; the test set chooses nothing.

    Args:
        base: The float run.
        data: Data set.
        profile: Limits profile with a law.
        folder: Run folder of the fine-tuning.
        sizes: Sizes.
        settings: ``seed`` and ``told`` of :func:`trained`.

    Returns:
        ``float``, ``before``, ``fine_float``, ``after``, ``same_before``, ``same_after``, samples; or ``refused``, why
        the target cannot hold the network.
    """
    facts: dict[str, Any] = {"profile": profile, "seed": settings["seed"]}
    fits = check(base.network(), profile)
    if not fits.fits:
        return facts | {"refused": " ".join(item.sentence() for item in fits.violations[:3])}
    try:
        recipe = fine_recipe(base, profile, sizes)
    except InputError as error:  # a learning rule that has no grid
        return facts | {"refused": str(error)}
    fine = trained(recipe, data, folder, start=base, **settings)
    before, after = (evaluate_as(run, data, profile) for run in (base, fine))
    return facts | {
        "float": before.float_result.accuracy,
        "before": before.integer_result.accuracy,
        "same_before": before.same_class,
        "fine_float": after.float_result.accuracy,
        "after": after.integer_result.accuracy,
        "same_after": after.same_class,
        "overflow": after.overflow,
        "n_samples": before.float_result.n_samples,
        "epoch": _epoch(fine),
    }


def _epoch(run: Run) -> int:
    results = (run.result or {}).get("results", {})
    label = "best-validation" if "best-validation" in results else "last-epoch"
    return int(results[label]["epoch"]) if label in results else -1


def samples_of(run: Run, data: Dataset, count: int) -> Events:
    """Return the first training samples on the run's channels; the test set stays unseen."""
    events = prepare_split(run.recipe, data, "train", run.manifest)
    return pool_units(events.subset(np.arange(min(count, len(events)))), run.pool)


def energy_table(law: str | None) -> str:
    """Return the name of the table of energies for a law; None is a float network."""
    return "cmos45-float32" if law is None else ENERGY[law]


def export_part(
    target: str,
    network: Network,
    events: Events,
    folder: Path,
    pythons: Mapping[str, str] | None = None,
    *,
    generated: bool = True,
) -> dict[str, Any]:
    """Write a network for one target, prove it, and count what it takes.

    Args:
        target: Key of :data:`snnsim.export.TARGETS`.
        network: Frozen network.
        events: Training samples for the proof and the counts.
        folder: Where the file goes.
        pythons: Interpreters of the chips' programs.
        generated: See :class:`Sizes`.

    Returns:
        JSON values. ``refused`` alone says that the target cannot hold the network.
    """
    chosen = TARGETS[target]
    facts: dict[str, Any] = {"target": target, "title": chosen.title, "profile": chosen.profile}
    cores = None
    if chosen.profile:
        fits = check(network, chosen.profile)
        cores = None if target == "sana-fe" else fits.cores  # relays need more than the profile counts
        if not fits.fits:
            return facts | {"refused": " ".join(item.sentence() for item in fits.violations[:3])}
    path = folder / f"network{chosen.suffix}"
    begin = time.perf_counter()
    options: dict[str, Any] = {}
    if chosen.profile and "quantize" not in network.notes:  # scales that no training chose
        options["calibration" if target == "c99" else "calibrate"] = events
    try:
        report = export_network(network, target, path, **options)
    except InputError as error:
        return facts | {"refused": str(error)}
    facts["write_seconds"] = time.perf_counter() - begin
    integer: IntegerNetwork | None = None
    if chosen.profile and chosen.prover:
        tail = int(network.notes.get("tail_steps") or 0)
        given = events if options else None
        integer, _ = quantize(network, chosen.profile, calibration=given, tail_steps=tail)
    facts |= {
        "files": [str(item.relative_to(folder)) for item in _files(path)],
        "file_bytes": sum(item.stat().st_size for item in _files(path)),
        "changes": list(report.changes),
        "latency": max((abs(steps) for steps in report.latency.values()), default=0),
        "cores": cores,
        "law": None if integer is None else integer.law,
    }
    facts |= _memory(network, integer, chosen.profile) | _cost(network, integer, events)
    return facts | _proof(target, network, path, events, options, pythons, generated)


def _files(path: Path) -> list[Path]:
    return sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]


def _memory(network: Network, integer: IntegerNetwork | None, profile: str) -> dict[str, Any]:
    """Return synapses and the bytes of their weights and delays, as the target's widths have it."""
    if integer is None:
        found = footprint(network)
        return {"synapses": found.synapses, "memory_bytes": found.bytes}
    synapses = sum(int(item.n_synapses) for item in integer.projections)
    weight = int(load_profile(profile).weight_bits or 8)
    longest = max((int(item.delay.max(initial=0)) for item in integer.projections), default=0)
    delay = 0 if longest <= 1 else 8 if longest < 256 else 16
    return {"synapses": synapses, "memory_bytes": synapses * (weight + delay) // 8}


def _cost(network: Network, integer: IntegerNetwork | None, events: Events) -> dict[str, Any]:
    """Return operations and energy a sample on the samples of the proof."""
    tail = int(network.notes.get("tail_steps") or 0)
    if integer is None:
        operations: Operations = simulate(network, events, tail_steps=tail).operations
    else:
        operations = simulate_integer(integer, events, tail_steps=tail).operations
    table = energy_table(None if integer is None else integer.law)
    estimate = estimate_energy(network, operations, table)
    return {
        "energy": estimate.total,
        "energy_table": table,
        "synaptic_operations": operations.synaptic_operations / max(1, operations.n_samples),
        "neuron_updates": operations.neuron_updates / max(1, operations.n_samples),
    }


def _proof(
    target: str,
    network: Network,
    path: Path,
    events: Events,
    options: dict[str, Any],
    pythons: Mapping[str, str] | None,
    generated: bool,
) -> dict[str, Any]:
    """Return the outcome of the proof; a program that is not there is named."""
    settings: dict[str, Any] = {"events": events, "n_samples": len(events), "options": options}
    if pythons and TARGETS[target].prover and target != "c99":
        settings["pythons"] = pythons
    begin = time.perf_counter()
    try:
        proof: Any = prove_export(network, target, path, **settings)
        if generated and not proof.enough and proof.mismatches == 0 and not getattr(proof, "missing", ""):
            proof = prove_export(network, target, path, **{**settings, "events": None})
    except MissingLibraryError as error:
        return {"proven": False, "missing": str(error), "proof_seconds": time.perf_counter() - begin}
    proof.save(path / "proof.json" if path.is_dir() else path.with_name(path.name + ".proof.json"))
    missing = str(getattr(proof, "missing", ""))
    estimate = [line for line in getattr(proof, "remarks", ()) if line.startswith("Estimated")]
    return {
        "proven": bool(proof.holds),
        "missing": missing,
        "judge": str(proof.judge),
        "compared": int(proof.compared),
        "mismatches": int(proof.mismatches),
        "spikes": sum(int(count) for count in proof.spikes.values()),
        "planted": len(proof.mutations),
        "caught": sum(bool(item.caught) for item in proof.mutations),
        "proof_samples": int(proof.n_samples),
        "proof_steps": int(proof.n_steps),
        "proof_source": str(proof.source),
        "enough": bool(proof.enough),
        "proof_seconds": time.perf_counter() - begin,
        "remarks": list(getattr(proof, "remarks", ())),
        "estimate": estimate[0] if estimate else "",
        "table_bytes": getattr(proof, "table_bytes", None),
        "state_bytes": getattr(proof, "state_bytes", None),
    }
