"""The page: what it says is what was computed, it holds everything inside, and a real browser can show it."""

import html
import json
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from snnsim.datasets import make_toy
from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import LI, LIF
from snnsim.report import Story, build_page, write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DT = 0.005
VOID = {"meta", "link", "br", "img", "hr", "input"}


def detector(gain: float = 0.035) -> Network:
    """A hand-made network for the toy: each hidden neuron undoes the delays of one class."""
    data = make_toy(n_train=4, n_test=4)
    delays = np.asarray(data.notes["delays"])  # (class, group), seconds
    per_channel = np.repeat(delays.max() - delays, data.n_units // delays.shape[1], axis=1)
    n_classes = delays.shape[0]
    return Network(
        populations=(
            Population("hidden", n_classes, LIF(tau_mem=0.01)),
            Population("readout", n_classes, LI(tau_mem=0.1)),
        ),
        projections=(
            Projection("sound", "hidden", np.full((n_classes, data.n_units), gain), np.rint(per_channel / DT) * DT),
            Projection("hidden", "readout", np.eye(n_classes)),
        ),
        inputs=(Input("sound", data.n_units),),
        readout=Readout("readout", reduce="max"),
        dt=DT,
        notes={"frozen": ["made by hand"]},
    )


@pytest.fixture(scope="module")
def test_events() -> Events:
    test = make_toy(n_train=4, n_test=40, jitter=0.02, noise_rate=40.0).test
    assert test is not None
    return test


PROOF = {
    "mismatches": 0,
    "compared": 1_234_567,
    "judge": "another <program>",
    "holds": True,
    "layers": [{"population": "hidden", "compared": 1_234_567, "spikes": 20_000, "mismatches": 0}],
    "mutations": [{"what": "delay of one synapse", "mismatches": 7, "caught": True}],
    "remarks": ["The readout has no drive."],
}
METRICS = [
    {"epoch": 1, "loss": 2.0, "valid_loss": 2.1, "train_accuracy": 0.3, "valid_accuracy": 0.25},
    {"epoch": 2, "loss": 1.0, "valid_loss": 1.2, "train_accuracy": 0.8, "valid_accuracy": 0.7},
]
STORY = Story(
    title="Toy & delays",
    recipe={"name": "toy", "train": {"epochs": 2}},
    manifest={"seed": 3, "versions": {"numpy": "2"}, "test_run_count": 1},
    metrics=METRICS,
    result={"last-epoch": {"epoch": 2, "test_accuracy": 0.9}},
    before=detector(),
    proof=PROOF,
    changes=["Delays became delay lines."],
    files={"recipe.json": 123},
    seconds={"train": 1.5},
)


@pytest.fixture(scope="module")
def page(test_events: Events) -> str:
    return build_page(detector(), test_events, STORY, tail_steps=60)


def text_of(page: str) -> str:
    body = re.sub(r"<style>.*?</style>", " ", page, flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", body).split()))


def test_the_page_states_the_accuracy_of_a_separate_simulation(page: str, test_events: Events) -> None:
    result = simulate(detector(), test_events, tail_steps=60)
    accuracy = np.mean(result.predictions == test_events.labels)
    assert 0.5 < accuracy < 1, "the sample pictures need right and wrong samples"
    shown = text_of(page)
    assert f"{accuracy:.1%} accuracy on 40 test samples" in shown
    right = int(np.sum(result.predictions == test_events.labels))
    assert f"{right} of 40 right" in shown
    assert f"{result.operations.synaptic_operations:,}" in shown
    assert f"{result.operations.dense:,}" in shown


def test_the_page_shows_a_right_and_a_wrong_sample(page: str, test_events: Events) -> None:
    result = simulate(detector(), test_events, tail_steps=60)
    names = test_events.class_names
    said = re.findall(r"Sample (\d+): true class ([\w-]+), predicted ([\w-]+)\.", text_of(page))
    assert len(said) == 2
    for sample_id, true, predicted in said:
        index = int(np.flatnonzero(test_events.sample_ids == int(sample_id))[0])
        assert names[test_events.labels[index]] == true
        assert names[result.predictions[index]] == predicted
    assert [true == predicted for _, true, predicted in said] == [True, False]


def test_the_page_holds_proof_manifest_recipe_and_changes(page: str) -> None:
    shown = text_of(page)
    for piece in (
        "Toy & delays",
        "no spike differs",
        "1,234,567",
        "another <program>",
        "delay of one synapse 7 caught",
        "The readout has no drive.",
        "Delays became delay lines.",
        "versions.numpy 2",
        "test_run_count 1",
        detector().digest(),
        '"epochs": 2',
        "made by hand",
        "last-epoch 2 90.00%",
    ):
        assert piece in shown, piece


def test_the_page_is_self_contained(page: str) -> None:
    assert "<script" not in page
    for link in re.findall(r'(?:src|href)=["\']([^"\']*)["\']', page):
        assert link.startswith(("#", "data:")), link
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


class _Tree(HTMLParser):
    """Checks that elements close in order, ids are unique and links inside the page have a target."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        if named.get("id"):
            self.ids.append(str(named["id"]))
        for key in ("href", "xlink:href"):
            if str(named.get(key, "")).startswith("#"):
                self.targets.append(str(named[key])[1:])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_semantic(page: str) -> None:
    tree = _Tree()
    tree.feed(page)
    assert tree.open == []
    assert len(tree.ids) == len(set(tree.ids))
    assert set(tree.targets) <= set(tree.ids)
    assert tree.tags.count("h1") == 1
    assert {"header", "main", "footer", "nav", "section", "figure", "figcaption", "caption"} <= set(tree.tags)
    assert tree.tags.count("svg") == tree.tags.count("figure") >= 7


def test_what_is_not_known_is_said(test_events: Events) -> None:
    plain = detector()
    still = plain.replace(
        projections=tuple(Projection(p.source, p.target, p.weight) for p in plain.projections), readout=None
    )
    shown = text_of(build_page(still, test_events))
    assert "No learning curves" in shown
    assert "This network has no delays." in shown
    assert "This network has no readout" in shown
    assert "No proof belongs to this page." in shown
    assert "accuracy on" not in shown


def test_a_failed_proof_is_not_dressed_up(test_events: Events) -> None:
    failed = Story(proof={**PROOF, "mismatches": 12, "holds": False})
    shown = text_of(build_page(detector(), test_events, failed, tail_steps=60))
    assert "12 spikes differ" in shown
    assert "no spike differs" not in shown
    short = Story(proof={**PROOF, "holds": False})
    assert "no spike differs, but the proof does not count" in text_of(build_page(detector(), test_events, short))


def test_no_samples_are_refused(test_events: Events) -> None:
    with pytest.raises(InputError, match="no samples"):
        build_page(detector(), test_events.subset([]))


def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no browser is installed (looked for chromium and google-chrome)")
    return found


def run_browser(program: str, profile: Path, *words: str) -> subprocess.CompletedProcess[str]:
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
    flags += " --disable-sync --no-first-run --disable-dev-shm-usage --enable-logging=stderr"
    command = [program, *flags.split(), f"--user-data-dir={profile}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


PROBE = """<script>
window.addEventListener("load", async () => {
  const images = [...document.querySelectorAll("img, svg image")];
  const sizes = await Promise.all(images.map(async (node) => {
    const picture = new Image();
    picture.src = node.src || node.href.baseVal;
    await picture.decode();
    return [picture.naturalWidth, picture.naturalHeight];
  }));
  const drawings = [...document.querySelectorAll("figure > svg")].map((node) => {
    const box = node.getBoundingClientRect();
    return [Math.round(box.width), Math.round(box.height), node.querySelectorAll("path").length];
  });
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.title = JSON.stringify({ sizes, drawings, wide, loaded });
});
</script>"""


def test_a_browser_shows_every_picture_without_an_error(page: str, tmp_path: Path) -> None:
    program = browser()
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    shown = run_browser(
        program, tmp_path / "one", "--virtual-time-budget=10000", "--dump-dom", "--window-size=1100,1600",
        probed.as_uri(),
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", shown.stdout, re.DOTALL)
    assert title is not None, shown.stderr
    found = json.loads(html.unescape(title.group(1)))
    assert len(found["sizes"]) >= 3  # delay map, weights against delays, confusion matrix
    assert all(width > 0 and height > 0 for width, height in found["sizes"])
    assert len(found["drawings"]) >= 7
    assert all(width > 200 and height > 100 and paths > 3 for width, height, paths in found["drawings"])
    assert found["wide"] <= 0, "the page scrolls sideways"
    assert [name for name in found["loaded"] if not name.startswith("data:")] == []
    assert not [line for line in shown.stderr.splitlines() if "CONSOLE" in line], shown.stderr


def test_a_browser_paints_the_page(test_events: Events, tmp_path: Path) -> None:
    program = browser()
    written = write_report(tmp_path / "report.html", detector(), test_events, STORY, tail_steps=60)
    picture = tmp_path / "page.png"
    done = run_browser(
        program, tmp_path / "two", f"--screenshot={picture}", "--window-size=1100,1400", written.as_uri()
    )
    assert picture.is_file(), done.stderr
    data = picture.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (1100, 1400)
    assert len(data) > 50_000, "an empty page compresses to much less"
