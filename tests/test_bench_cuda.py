"""`snnsim bench cuda` without a device: floors, tables, missing sides; in the simulator our own side runs for real."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from snnsim.bench import cuda_run
from snnsim.bench.cuda_floor import Ceilings, Phase, floors, least_seconds, neuron_bytes
from snnsim.bench.cuda_run import CudaResult, CudaSide, Limits, _parts, measure_cuda
from snnsim.bench.cuda_table import SIMULATED, describe_device, format_cuda, report_cuda
from snnsim.bench.cuda_tasks import CUDA_TASKS, SIDES, CudaTask, choose_cuda_tasks, groups
from snnsim.bench.peers import ours_cuda
from snnsim.cli.bench import app
from snnsim.cli.main import run
from snnsim.engines import ENGINES
from snnsim.errors import InputError

FACTS = {
    **{"simulated": False, "device": "GPU X", "copy_bytes": 2e12, "operations": 5e13, "bf16_operations": 7e14},
    **{"memory": 80 << 30, "capability": "9.0", "torch_cuda": "13.0"},
}
CEILINGS = Ceilings(1e12, 1e13)


def test_a_phase_takes_the_longer_of_its_bytes_and_operations() -> None:
    assert Phase(1e13, 1e11).seconds(CEILINGS) == 1.0
    assert Phase(1e12, 1e12).seconds(CEILINGS) == 1.0
    assert least_seconds([Phase(1e13, 0), Phase(0, 1e12)], CEILINGS) == 2.0


def test_floors_count_what_is_written_in_their_page() -> None:
    kernel = floors(CUDA_TASKS["lif-kernel-4096"])
    size = 500 * 16 * 4096
    assert kernel["forward"] == [Phase(0, size * 8.125)]
    assert kernel["backward"] == [Phase(0, size * 12.125)]
    assert neuron_bytes(1, False) == 8 + 4 / 32
    linear = floors(CUDA_TASKS["linear-lif-512"])
    assert linear["forward"][0] == Phase(2 * 8000 * 512 * 512, 4 * (2 * 8000 * 512 + 512 * 512))
    (step,) = floors(CUDA_TASKS["lif-100"]).values()
    dense = 2 * 12800 * (700 * 256 * 2 + 256 * 256 * 3 + 256 * 20 * 3)
    assert sum(phase.operations for phase in step) == dense
    assert len(step) == 2 + 3 + 3 + 6


def test_the_floor_of_delays_does_not_grow_with_their_taps() -> None:
    task = CUDA_TASKS["shd-train"]
    (step,) = floors(task).values()
    frequencies = (100 + 36 + 24) // 2 + 1
    pairs = 140 * 256 * 2 + 256 * 256 * 3 + 256 * 20 * 3
    assert sum(phase.operations for phase in step) == 6 * frequencies * 256 * pairs
    assert floors(replace(task, taps=3)) == floors(task)
    (evaluation,) = floors(CUDA_TASKS["shd-eval"]).values()
    assert sum(phase.operations for phase in evaluation) == 2 * 136 * 256 * (140 * 256 + 256 * 256 + 256 * 20)
    assert floors(CUDA_TASKS["brunel"]) == {}


def test_tasks_are_chosen_by_name_or_group_and_ceilings_come_first() -> None:
    assert [task.name for task in choose_cuda_tasks(["lif-100"])] == ["ceilings", "lif-100"]
    assert [task.name for task in choose_cuda_tasks(["sim"])] == ["ceilings", "brunel", "microcircuit"]
    assert [task.name for task in choose_cuda_tasks(None)] == list(CUDA_TASKS)
    wanted = {"shd", "ssc", "lif", "linear-lif", "sim", "precision", "ceilings"}
    assert wanted <= set(groups())
    assert {side.partition(":")[0] for task in CUDA_TASKS.values() for side in task.peers} <= set(SIDES)
    sizes = [task.sizes[0] for task in CUDA_TASKS.values() if task.kind == "linear"]
    assert sorted(sizes) == [512, 1024, 2048, 4096, 8192, 16384]
    with pytest.raises(InputError, match="expected some of ceilings, shd, lif"):
        choose_cuda_tasks(["brian"])


def test_quick_sizes_are_small() -> None:
    for task in CUDA_TASKS.values():
        toy = task.quick(True)
        assert max(toy.sizes, default=0) <= 4
        assert toy.n_steps <= 6
        small = task.quick(False)
        assert max(small.sizes, default=0) <= 512
        assert small.name == task.name


def result(**changes: Any) -> CudaResult:
    ours = CudaSide("ours", {"step": (1.0, 2.0)}, 4 << 20, 8 << 20, {"torch": "2"})
    other = CudaSide("norse", {"step": (3.0, 4.0)}, 8 << 20, 0, {"norse": "1"})
    sides = (ours, other, CudaSide("spyx", missing="No module named 'spyx' (pip install spyx)"))
    return replace(CudaResult(CUDA_TASKS["lif-100"], sides, {}, {"step": 0.5}), **changes)


def test_a_table_says_ratios_ranges_floors_memory_and_what_is_missing() -> None:
    text = format_cuda(result())
    assert "2.50 (2.00-3.00)" in text
    assert "1500.000" in text
    assert "3.00" in text.splitlines()[2]  # times the floor
    assert "spyx not measured: No module named 'spyx' (pip install spyx)" in text
    assert "700-256-256-20, batch 128, T = 100" in text
    rows = json.loads(json.dumps(result().to_json()))["sides"]
    assert rows[1]["parts"]["step"]["ratio_range"] == [2.0, 3.0]
    assert rows[0]["peak_bytes"] == 4 << 20
    assert "simulated ms" in format_cuda(result(simulated=True))
    assert "not measured: out of memory" in format_cuda(result(missing="out of memory"))


def test_the_page_names_device_versions_and_the_share_of_the_bandwidth() -> None:
    ceilings = CudaResult(CUDA_TASKS["ceilings"], (CudaSide("ours", versions={"numba": "1.2"}),), FACTS)
    kernel = CudaSide("ours", {"forward": (2.0,), "backward": (4.0,)})
    alone = CudaResult(CUDA_TASKS["lif-kernel-4096"], (kernel,), {}, {"forward": 1.5, "backward": 3.0})
    page = report_cuda([ceilings, result(), alone, result(missing="no time was left")], 3)
    assert "GPU X: copies 2000 GB/s" in page
    assert "numba 1.2" in page
    assert "| norse | 3500.000 | 2.50 (2.00-3.00) |" in page
    assert "75%, 75%" in page
    assert "Not measured: no time was left" in page
    assert "norse: norse 1" in page
    assert describe_device({**FACTS, "simulated": True}) == SIMULATED


def test_both_passes_without_the_forward_one_are_the_backward_one() -> None:
    assert _parts([{"forward": 1.0, "both": 3.0}, {"forward": 2.0, "both": 3.0}]) == {
        "forward": (1.0, 2.0),
        "backward": (2.0, 1.0),
    }


def test_our_side_runs_in_the_simulator_and_partial_results_are_written(tmp_path: Path) -> None:
    page = tmp_path / "report.md"
    names = ["shd-train", "linear-lif-512", "lif-kernel-4096"]
    found = CliRunner().invoke(app, ["cuda", *names, "--quick", "--rounds", "1", "--json", "--out", str(page)])
    assert found.exit_code == 0, found.output
    made = json.loads(found.stdout.splitlines()[-1])
    assert made["simulated"] is True
    tasks = {row["task"]: row for row in made["results"]}
    assert list(tasks) == ["ceilings", "shd-train", "lif-kernel-4096", "linear-lif-512"]
    for name, row in tasks.items():
        assert row["missing"] == "", row
        assert row["floor_seconds"] == {}
        if name != "ceilings":
            assert all(part["seconds"][0] > 0 for part in row["sides"][0]["parts"].values())
    assert set(tasks["linear-lif-512"]["sides"][0]["parts"]) == {"forward", "backward"}
    assert SIMULATED in page.read_text()
    assert "## linear-lif-512" in page.read_text()


@pytest.fixture
def ours() -> Iterator[Any]:
    """Yield our side, in this process, and let go of the device at the end."""
    yield ours_cuda
    ours_cuda._open.close()
    ours_cuda._device.clear()


def toy(name: str) -> dict[str, Any]:
    return {**CUDA_TASKS[name].quick(True).to_json("cuda", 1), "side": "ours", "way": ""}


def test_simulations_go_on_stretch_by_stretch_on_both_engines(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "cuda", ENGINES["clock"])  # the same spikes are expected of the real one
    work = ours.build({**toy("brunel"), "n_steps": 200})
    for _ in range(2):
        results = [part() for part in work["parts"].values()]
    assert [result.state.samples[0].step for result in results] == [400, 400]
    facts = work["facts"]()
    assert facts["spikes"]["cuda"] == facts["spikes"]["clock"]
    assert facts["spikes"]["cuda"][1] > 0
    assert facts["neurons"] == 25
    assert facts["stretch_seconds"] == pytest.approx(0.02)
    sides = (CudaSide('engine "cuda"', {"stretch": (0.5,)}), CudaSide('engine "clock"', {"stretch": (1.0,)}))
    text = format_cuda(CudaResult(CUDA_TASKS["brunel"], sides, facts))
    assert "25.000" in text  # seconds a biological second
    assert "2.00 (2.00-2.00)" in text
    assert "25 neurons" in text
    only = format_cuda(CudaResult(CUDA_TASKS["brunel"], sides, facts, simulated=True))
    assert "2.00 (" not in only
    assert "biological" not in only


def test_distances_from_float64_are_those_of_float32(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("snnsim.nn.precision") is None:
        stand_in = SimpleNamespace(products=lambda precision: nullcontext())
        monkeypatch.setitem(sys.modules, "snnsim.nn.precision", stand_in)
    task = {**toy("precision"), "sizes": (3, 4, 2), "n_steps": 5, "n_delays": 3}
    facts = ours.build(task)["facts"]()
    assert len(facts["layers"]) == 2
    for row in facts["layers"]:
        assert 0 < max(row.values()) < 1e-6
    assert set(facts) == {"layers", "float32", "plain float32", "plain bf16"}
    assert facts["float32"]["differing"] == 0
    assert facts["float32"]["spikes"] > 0
    assert "delay layer 2 alone" in format_cuda(CudaResult(CUDA_TASKS["precision"], (), facts))


def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "cuda", "lif"]) == 2
    assert "expected --quick in Numba's simulator" in capsys.readouterr().err
    assert run(["bench", "cuda", "nonsense", "--quick"]) == 2
    assert run(["bench", "cuda", "--quick", "--python", "norse"]) == 2


def test_without_a_device_one_sentence_says_why() -> None:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "snnsim", "bench", "cuda", "lif"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "bench 'cuda': " in done.stderr


def worker(name: str, task: CudaTask, device: str = "cpu") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a side answers when it is built and when it has a turn."""
    process = cuda_run._Process(name, sys.executable)
    try:
        given = {**task.quick(True).to_json(device, 1), "side": name}
        return process.ask(60, do="build", task=given), process.ask(60, do="turn", seconds=0.0)
    finally:
        process.end()


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["snntorch", *(pytest.param(name, marks=SLOW) for name in ("spikingjelly", "norse", "torch:compile"))]
)
def test_libraries_run_forward_and_backward_apart(name: str) -> None:
    pytest.importorskip(name.partition(":")[0])
    built, turn = worker(name, CUDA_TASKS["linear-lif-512"])
    assert name.partition(":")[0] in built["versions"]
    assert set(turn["seconds"]) == {"forward", "backward"}
    assert min(turn["seconds"].values()) > 0


@SLOW
def test_the_delay_papers_libraries_train() -> None:
    for library in ("DCLS", "spikingjelly"):
        pytest.importorskip(library)
    built, turn = worker("dcls", CUDA_TASKS["shd-train"])
    assert "dcls" in built["versions"]
    assert turn["seconds"]["step"] > 0


@SLOW
@pytest.mark.parametrize("name", ["spikingjelly:torch", "snntorch", "norse", "torch:compile"])
def test_libraries_train(name: str) -> None:
    _, turn = worker(name, CUDA_TASKS["lif-100"])
    assert turn["seconds"]["step"] > 0


def test_a_library_without_the_kernels_is_named_with_what_to_do() -> None:
    pytest.importorskip("spikingjelly")
    task = replace(CUDA_TASKS["lif-100"].quick(True), peers=("spikingjelly:cupy",))
    bench = cuda_run._Bench({}, 1, Limits(), lambda text: None)
    try:
        given = {**task.to_json("cpu", 1), "side": "spikingjelly:cupy"}
        with pytest.raises(InputError, match="no CuPy kernels") as caught:
            bench.process("spikingjelly:cupy").ask(60, do="build", task=given)
        assert "spikingjelly==0.0.0.0.14" in bench.sentence("spikingjelly:cupy", caught.value)
        with pytest.raises(InputError, match=r"spikingjelly==0\.0\.0\.0\.14"):
            bench.process("spikingjelly:cupy")
    finally:
        bench.end()


FAKE = """#!/bin/bash
read line; {first}
read line; {second}
"""
ANSWER = 'echo \'{"rise": 0, "versions": {}, "facts": {"simulated": true}}\''


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ("echo hello", "", "it answered 'hello'"),
        ("exit 1", "", "it ended without a word"),
        ('echo \'{"error": "CUDA out of memory"}\'; read line', "", "CUDA out of memory"),
        ("sleep 5", "", "it took longer than 0 s"),
        ("echo broken >&2; exit 1", "", "broken"),
        (ANSWER, 'echo \'{"error": "in the turn"}\'; read line', "in the turn"),
    ],
)
def test_a_side_that_fails_loses_its_task_only(first: str, second: str, sentence: str, tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    turns = 'echo \'{"seconds": {"step": 0.5}}\''
    ours.write_text(f"#!/bin/bash\nread line; {ANSWER}\nread line; {turns}\nread line; {ANSWER}\nread line\n")
    other.write_text(FAKE.format(first=first, second=second))
    for file in (ours, other):
        file.chmod(0o755)
    task = replace(CUDA_TASKS["lif-100"], peers=("norse",))
    (made,) = measure_cuda([task], limits=Limits(rounds=1, side=0.3), pythons={"ours": str(ours), "norse": str(other)})
    assert made.missing == ""
    assert [side.name for side in made.sides] == ["ours", "norse"]
    assert made.sides[0].seconds == {"step": (0.5,)}
    assert sentence in made.sides[1].missing


def test_where_our_side_fails_the_task_is_left_out(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_text("#!/bin/bash\nread line; echo '{\"hello\": 1}'\n")
    ours.chmod(0o755)
    (made,) = measure_cuda([replace(CUDA_TASKS["lif-100"], peers=())], pythons={"ours": str(ours)})
    assert "which is not rise and versions" in made.missing
    with pytest.raises(InputError, match="bench cuda: it answered"):
        measure_cuda([CUDA_TASKS["ceilings"]], pythons={"ours": str(ours)})


def test_tasks_that_have_no_time_left_are_named(tmp_path: Path) -> None:
    told: list[CudaResult] = []
    (made,) = measure_cuda([CUDA_TASKS["lif-100"]], limits=Limits(total=-1.0), told=told.append)
    assert told == [made]
    assert "no time was left" in made.missing
    bench = cuda_run._Bench({}, 1, Limits(total=20.0), lambda text: None)
    assert bench.within(3.0) == 3.0
    assert 15.0 < bench.within(90.0) <= 20.0
    bench.deadline = 0.0
    assert bench.within(90.0) == cuda_run.LEAST
