"""The study of hardware targets as a whole: parts that are done are kept in files, so that a stopped study goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from snnsim.datasets.dataset import Dataset
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.export import TARGETS
from snnsim.files import write_json
from snnsim.network import Network
from snnsim.studies.hardware import LAWS, Sizes, accuracy_of, base_recipe, export_part, samples_of, trained
from snnsim.studies.hardware_xylo import XYLO, xylo_network
from snnsim.training.runs import Run

__all__ = ["reproduce_hardware"]

Told = Callable[[str], None]


def reproduce_hardware(
    data: Dataset,
    out: str | Path,
    *,
    seeds: int = 1,
    run: Run | None = None,
    sizes: Sizes | None = None,
    pythons: Mapping[str, str] | None = None,
    told: Told | None = None,
) -> dict[str, Any]:
    """Run the study, or what is missing of it, and write ``study.json`` and ``report.html``.

    Args:
        data: Data set with a test part.
        out: Folder; a second call with the same folder goes on.
        seeds: Seeds of the float network and of its fine-tuning.
        run: A trained run instead of the study's own network; one seed.
        sizes: Sizes.
        pythons: Interpreters of the chips' programs, as in ``snnsim export --python``.
        told: Told what begins.

    Returns:
        What ``study.json`` holds: ``accuracy``, one entry a seed and law; ``targets``, one a target, of seed 0;
        ``facts`` about data and sizes.

    Raises:
        InputError: No test part, several seeds for one run, or a folder of another study.
    """
    sizes, tell, folder = sizes or Sizes(), told or (lambda text: None), Path(out)
    if data.test is None:
        raise InputError(f"reproduce hardware: data set {data.name!r} has no test part; accuracy needs one")
    if run is not None and seeds > 1:
        raise InputError("reproduce hardware: --run names one network; leave --seeds out")
    folder.mkdir(parents=True, exist_ok=True)
    facts = _same_study(folder, data, sizes, run)
    accuracy: list[dict[str, Any]] = []
    runs: dict[str, Run] = {}
    for seed in range(seeds):
        base = run or trained(base_recipe(sizes, data), data, folder / f"float-{seed}", seed=seed, told=tell)
        if seed == 0:
            runs["float"] = base
        for profile in LAWS:
            place = folder / f"{profile}-{seed}"
            made = _kept(
                folder / f"accuracy-{profile}-{seed}.json",
                lambda base=base, profile=profile, place=place, seed=seed: accuracy_of(  # type: ignore[misc]
                    base, data, profile, place, sizes, seed=seed, told=tell
                ),
            )
            accuracy.append(made)
            if seed == 0 and "refused" not in made:
                from snnsim.training import load_run

                runs[profile] = load_run(place)
    networks = {name: item.network() for name, item in runs.items()}
    events = samples_of(runs["float"], data, sizes.samples)
    targets: list[dict[str, Any]] = []
    for target in sorted(TARGETS):
        network, samples, what = _network_for(target, networks, events, data, folder, sizes, tell)
        part = folder / "targets" / target
        part.mkdir(parents=True, exist_ok=True)

        def make(target: str = target, network: Network = network, samples: Events = samples) -> dict[str, Any]:
            tell(f"target {target}")
            begin = time.perf_counter()
            place = folder / "targets" / target
            found = export_part(target, network, samples, place, pythons, generated=sizes.generated)
            return found | {"seconds": time.perf_counter() - begin}

        result = _kept(part / "part.json", make, again=lambda found: bool(found.get("missing")))
        targets.append(result | what)
    study = {"schema": 1, "facts": facts, "seeds": seeds, "accuracy": accuracy, "targets": targets}
    write_json(folder / "study.json", study)
    from snnsim.studies.hardware_page import write_hardware_page

    write_hardware_page(folder / "report.html", study, networks)
    return study


def _network_for(
    target: str,
    networks: Mapping[str, Network],
    events: Events,
    data: Dataset,
    folder: Path,
    sizes: Sizes,
    told: Told,
) -> tuple[Network, Events, dict[str, Any]]:
    """Return the network that a target gets, samples for it, and words about it."""
    profile = TARGETS[target].profile
    if profile == XYLO:
        found = xylo_network(data, folder / "xylo-0", sizes, told=told)
        return found.network, found.events, {"network": found.words, **found.accuracies}
    if profile in networks:
        return networks[profile], events, {"network": f"trained on the grid of {profile}"}
    return networks["float"], events, {"network": "float"}


def _kept(path: Path, make: Callable[[], dict[str, Any]], again: Callable[[dict[str, Any]], bool] | None = None) -> Any:
    """Return what an earlier call stored, or make and store it; ``again`` says that it must be made anew."""
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if isinstance(found, dict) and not (again is not None and again(found)):
            return found
    made = make()
    write_json(path, made)
    return json.loads(path.read_text(encoding="utf-8"))


def _same_study(folder: Path, data: Dataset, sizes: Sizes, run: Run | None) -> dict[str, Any]:
    """Refuse a folder with parts of another study."""
    now = {
        "data": data.name,
        "digest": data.digest,
        "classes": data.n_classes,
        "channels": data.n_units,
        "train": len(data.train),
        "test": len(data.test) if data.test is not None else 0,
        "sizes": json.loads(json.dumps(asdict(sizes))),
        "run": None if run is None else run.network().digest(),
    }
    known = folder / "settings.json"
    if known.is_file() and json.loads(known.read_text(encoding="utf-8")) != now:
        raise InputError(f"{folder}: holds a study of other data, sizes or another run; choose another --out")
    write_json(known, now)
    return now
