"""`snnsim demo`: the whole chain on the spoken digits that come with the package, in a few minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from snnsim.cli.output import emit, note

__all__ = ["demo"]

RECIPE = "spoken-digits"
DATA = "spoken-digits"


class _Stages:
    """Says what is being done and keeps how long each stage took."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[None]:
        place = self.names.index(name) + 1
        note(f"[{place}/{len(self.names)}] {name}: {text}")
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything that the demo makes.")] = Path("runs/demo"),
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs of training; by default those of the recipe.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights, split, order and dropout.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train, simulate, export and prove a spoken-digit network, end to end.

    Trains with learnable delays on the built-in spoken digits, tests on voices that were not trained on, freezes the
    network, simulates it on the clock engine, exports it to NIR, proves with another program that the same spikes
    come out, and writes report.html. A second call with the same folder uses what is there.
    """
    begin = time.perf_counter()
    stages = _Stages(("data", "train", "freeze", "simulate", "export", "report"))
    note("loading ...")
    from snnsim.datasets import open_dataset
    from snnsim.export import export_network, prove_export
    from snnsim.recipes import load_recipe
    from snnsim.training import evaluate, load_run, train
    from snnsim.training.display import Display

    recipe = load_recipe(RECIPE, [] if epochs is None else [f"train.epochs={epochs}"])
    with stages.stage("data", f"the built-in set {DATA!r}, cochlea spike trains of spoken digits"):
        dataset = open_dataset(DATA)
        n_test = len(dataset.test) if dataset.test is not None else 0
        unseen = len(dataset.unseen_speakers)
        note(
            f"      {len(dataset.train)} samples to train and {n_test} to test, {dataset.n_classes} classes, "
            f"{dataset.n_units} channels; {unseen} voices occur in the test samples only"
        )
    display = Display()
    with stages.stage("train", f"recipe {recipe.name!r} with learnable delays, {recipe.train.epochs} epochs"):
        try:
            trained = train(recipe, dataset, out, seed=seed, resume=True, callback=display)
        finally:
            display.close()
    run = load_run(out)
    with stages.stage("freeze", "delays on the grid, batch norm folded, dropout gone"):
        network = run.network()
        network_file = out / f"{run.default}.snn.h5"
        for sentence in network.notes.get("frozen", ()):
            note(f"      {sentence}")
    with stages.stage("simulate", f"{n_test} test samples on the clock engine, float64"):
        measured = evaluate(run, dataset, engine="clock")
    exported = out / f"{run.default}.nir"
    with stages.stage("export", f"NIR file {exported}, run by another program on the same input"):
        written = export_network(network, "nir", exported)
        proof = prove_export(network, "nir", exported, n_samples=60)
        proof.save(exported.with_name(exported.name + ".proof.json"))
        for sentence in proof.sentences():
            note(f"      {sentence}")
    page = out / "report.html"
    with stages.stage("report", str(page)):
        from snnsim.cli.report import report_run

        changes = list(written.changes)
        report_run(run, dataset, page, proof=proof.to_dict(), changes=changes, seconds=dict(stages.seconds))
    seconds = time.perf_counter() - begin
    result: dict[str, Any] = {
        "accuracy": measured.accuracy,
        "n_samples": measured.n_samples,
        "engine": "clock",
        "spikes": measured.spikes / max(1, measured.n_samples),
        "synaptic_operations": measured.synaptic_operations,
        "mismatches": proof.mismatches,
        "compared": proof.compared,
        "seconds": seconds,
        "files": [out, network_file, exported, page],
        "changes": changes,
        "torch_accuracy": trained.accuracy,
        "proof_holds": proof.holds,
        "unseen_voices": unseen,
        "stages": stages.seconds,
    }
    emit(result, json=json, text=_summary(result, out, page))
    if not proof.holds:
        raise typer.Exit(1)


def _summary(result: dict[str, Any], out: Path, page: Path) -> str:
    trained = "not known" if result["torch_accuracy"] is None else f"{100 * result['torch_accuracy']:.2f} %"
    verdict = "the proof holds" if result["proof_holds"] else "the proof does NOT hold"
    return "\n".join(
        [
            "",
            f"accuracy    {100 * result['accuracy']:.2f} % on {result['n_samples']} test samples of "
            f"{result['unseen_voices']} unseen voices (clock engine); the model in torch: {trained}",
            f"activity    {result['spikes']:,.0f} spikes and {result['synaptic_operations']:,.0f} synaptic operations "
            "a sample",
            f"export      {result['mismatches']} of {result['compared']:,} neuron-steps differ in the exported file; "
            f"{verdict}",
            f"report      {page}",
            f"time        {result['seconds']:.0f} s",
            "",
            "next:",
            f"  snnsim train {RECIPE} --set model.connection.kind=linear --out {out}-no-delays   # what delays give",
            f"  snnsim eval {out} --engine clock                      # the frozen network, without torch",
            "  snnsim train shd-dcls --data FOLDER                       # your own *_train.h5 and *_test.h5",
        ]
    )
