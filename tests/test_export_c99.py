"""C99 sources compiled by the system's compiler: bit for bit the integer reference, and comparisons that can fail."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixed_networks import DT, any_network, naive, rich_network

from snnsim.cli.main import run as run_command
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events
from snnsim.export import export_network, prove_export
from snnsim.export.c99 import write_c99
from snnsim.export.c99_judge import FLAGS, C99Judge, CompilerMissingError, find_compiler
from snnsim.export.c99_layout import lay_out
from snnsim.export.c99_proof import prove_c99
from snnsim.export.memory_images import read_images
from snnsim.integer_network import IntegerNetwork
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import LI, LIF, CubaLIF
from snnsim.quantize import QuantizeOptions, quantize

HAS_COMPILER = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
compiled = pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler (cc, gcc or clang) is installed")
CHECKED = (
    *(flag for flag in FLAGS if flag != "-O2"),
    "-Wconversion",
    "-fsanitize=undefined",
    "-fno-sanitize-recover=all",
)


def counts_of(steps: int, samples: int, size: int, seed: int = 0, rate: float = 0.06) -> Any:
    return np.random.default_rng(seed).poisson(rate, (steps, samples, size)).clip(0, 3)


def events_of(counts: Any) -> Events:
    """Return (time, sample, unit) counts as events."""
    times, units = [], []
    for sample in counts.transpose(1, 0, 2):
        step, unit = np.nonzero(sample)
        times.append(np.repeat(step * DT, sample[step, unit]))
        units.append(np.repeat(unit, sample[step, unit]).astype(np.int32))
    return Events.from_lists(times, units, counts.shape[2], duration=counts.shape[0] * DT)


def layered(seed: int = 0, readout: Readout | None = None) -> Network:
    """One input, two layers with delays and recurrence: what a proof takes."""
    rng = np.random.default_rng(seed)
    return Network(
        populations=(
            Population("a", 40, LIF(tau_mem=rng.uniform(0.005, 0.02, 40), t_ref=0.001, drive=2.0)),
            Population("b", 30, CubaLIF(tau_mem=0.01, tau_syn=0.004, reset="subtract")),
            Population("out", 5, LI(tau_mem=0.03)),
        ),
        projections=(
            Projection("in", "a", rng.normal(0.15, 0.3, (40, 20)), rng.integers(0, 12, (40, 20)) * DT),
            Projection("a", "a", rng.normal(-0.05, 0.1, (40, 40)), rng.integers(1, 4, (40, 40)) * DT),
            Projection("a", "b", rng.normal(0.3, 0.8, (30, 40)), rng.integers(0, 6, (30, 40)) * DT),
            Projection("b", "out", rng.normal(0, 1, (5, 30))),
        ),
        inputs=(Input("in", 20),),
        readout=readout or Readout("out", "v", "max"),
        dt=DT,
    )


def same_as_naive(network: IntegerNetwork, judge: C99Judge, counts: Any) -> int:
    """Compare spikes, scores and membranes with the naive program; return the number of spikes."""
    run, total = judge.run(counts), 0
    for sample in range(counts.shape[1]):
        spikes, scores, v = naive(network, counts[:, sample])
        for name, expected in spikes.items():
            assert np.array_equal(run.spikes[name][:, sample], expected), name
            total += int(expected.sum())
        if scores:
            assert run.scores is not None
            assert run.scores[sample].tolist() == scores
        for name, last in v.items():
            assert run.membranes[name][sample].tolist() == last, name
    return total


@compiled
@pytest.mark.parametrize(
    ("reduce", "profile", "options", "counts"),
    [
        ("sum_softmax", "fixed8", QuantizeOptions(), 5),
        ("max", "fixed", QuantizeOptions(scale="layer"), 32),
        pytest.param("mean", "fixed8", QuantizeOptions(), 32, marks=pytest.mark.slow),
        pytest.param("last", "fixed8", QuantizeOptions(power_of_two=True, max_count=3), 3, marks=pytest.mark.slow),
        pytest.param("count", "fixed8", QuantizeOptions(max_count=3), 3, marks=pytest.mark.slow),
    ],
)
def test_compiled_programs_are_the_naive_program_and_define_everything(
    reduce: str, profile: str, options: QuantizeOptions, counts: int, tmp_path: Path
) -> None:
    """Every law, two inputs, every readout; compiled with all warnings as errors and checks of undefined behaviour."""
    network, _ = quantize(rich_network(1, reduce=reduce), profile, options=options)
    write_c99(network, tmp_path, prefix="Net_1", counts=counts)
    with C99Judge(tmp_path, flags=CHECKED) as judge:
        assert same_as_naive(network, judge, counts_of(90, 2, 16)) > 200
        run = judge.run(counts_of(30, 2, 16))
        assert run.updates.tolist() == [30 * 42] * 2
        assert np.all(run.ticks >= 0)


@compiled
@pytest.mark.slow
def test_tables_are_read_as_flash_is(tmp_path: Path) -> None:
    """Readers that give words without sign, as those of AVR do, and tables in a section of their own."""
    readers = tuple(f"-DSNN_READ{bits}(word)=((uint{bits}_t)(word))" for bits in (8, 16, 32))
    flags = (*CHECKED, '-DSNN_TABLE=__attribute__((section(".flash")))', *readers)
    for seed in (2, 7, 55):
        network = any_network(seed)
        write_c99(network, tmp_path / str(seed), images=False)
        with C99Judge(tmp_path / str(seed), flags=flags) as judge:
            counts = counts_of(45, 1, sum(item.size for item in network.inputs), seed, 0.3).clip(0, 2)
            same_as_naive(network, judge, counts)


@compiled
@pytest.mark.slow
def test_spikes_as_scores_and_skipped_steps(tmp_path: Path) -> None:
    for number, reduce in enumerate(("max", "last", "mean", "count")):
        given = rich_network(3).replace(readout=Readout("cuba", "spikes", reduce, 4 * number))  # type: ignore[arg-type]
        network, _ = quantize(given, "fixed8")
        write_c99(network, tmp_path / reduce, images=False)
        with C99Judge(tmp_path / reduce, flags=("-std=c99", "-O0")) as judge:
            same_as_naive(network, judge, counts_of(60, 1, 16, number))
            same_as_naive(network, judge, counts_of(3, 1, 16, number))  # no step is left to read


@compiled
def test_extreme_numbers_are_clamped_as_defined(tmp_path: Path) -> None:
    """Weights of 16 bits into neurons that never decay: membranes and currents reach the limits of the law."""
    rng = np.random.default_rng(0)
    given, _ = quantize(rich_network(2), "fixed")
    populations = []
    for item in given.populations:
        p = dict(item.parameters)
        p["beta"] = rng.choice([0, 1, 32767, 32768], item.size)
        if item.current:
            p["alpha"] = rng.choice([0, 32767, 32768], item.size)
        if item.spiking:
            p["v_threshold"] = rng.choice([1, 2**30 - 1, -5], item.size)
            p["v_reset"] = rng.integers(-(2**30) + 1, -6, item.size)
            p["reset_zero"] = rng.integers(0, 2, item.size)
            p["reset_amount"] = rng.integers(0, 1000, item.size)
        populations.append(type(item)(item.name, item.size, item.kind, p))
    network = given.replace(populations=tuple(populations))
    write_c99(network, tmp_path, images=False)
    with C99Judge(tmp_path, flags=CHECKED) as judge:
        counts = np.full((120, 1, 16), int(judge.description["max_count"]))
        counts[::7] = 0
        same_as_naive(network, judge, counts)
        run = judge.run(counts)
        assert max(int(np.abs(v).max()) for v in run.membranes.values()) == 2**30


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 5, 7, 9, 12, 14, 21, 28, 33, 43, 51, 55, 59, 70, 76, 84])
def test_drawn_networks_compile_and_are_the_naive_program(seed: int, tmp_path: Path) -> None:
    """One neuron or hundreds, any delays, parallel synapses, empty projections, readouts or none, numbers at limits."""
    network = any_network(seed)
    write_c99(network, tmp_path, prefix="f", images=False)
    with C99Judge(tmp_path, flags=CHECKED) as judge:
        size = sum(item.size for item in network.inputs)
        counts = counts_of(45, 1, size, seed, 0.3).clip(0, int(judge.description["max_count"]))
        same_as_naive(network, judge, counts)


@compiled
@pytest.mark.slow
def test_breaking_the_limit_on_counts_is_defined_behaviour(tmp_path: Path) -> None:
    write_c99(rich_network(1), tmp_path, weight_bits=16, counts=1, images=False)
    with C99Judge(tmp_path, flags=CHECKED) as judge:
        judge.run(np.full((200, 1, 16), 4000))  # sums wrap; the checks would end the program if that were undefined


@compiled
def test_a_changed_source_fails_and_names_the_first_difference(tmp_path: Path) -> None:
    network = layered()
    write_c99(network, tmp_path)
    source = tmp_path / "snn.c"
    text = source.read_text()
    found = re.search(r"snn_weight_2\[\d+\] SNN_TABLE = \{\n    (-?\d+), ", text)
    assert found is not None
    source.write_text(text[: found.start(1)] + str(-int(found.group(1))) + text[found.end(1) :])
    proof = prove_c99(network, tmp_path, events=events_of(counts_of(100, 8, 20)), mutate=False, cost=False)
    assert not proof.holds
    assert proof.mismatches > 0
    assert proof.first_difference is not None
    assert proof.first_difference[0] == "b"
    assert any("(first: sample" in sentence for sentence in proof.sentences())


@compiled
def test_generator_counts_bytes_and_operations_as_the_compiler_and_snnsim_do(tmp_path: Path) -> None:
    network = layered(readout=Readout("out", "v", "sum_softmax"))
    write_c99(network, tmp_path, prefix="x")
    with C99Judge(tmp_path) as judge:
        symbols = judge.symbols()
        expected = judge.description["tables"] | judge.description["state"]
        if symbols is not None:
            assert symbols == expected
        sizes = judge.sizes()
        if sizes is not None:
            assert sizes["data"] == 0
            assert judge.description["table_bytes"] <= sizes["text"]
            assert judge.description["state_bytes"] <= sizes["bss"] <= judge.description["state_bytes"] + 32 * 16
        assert sum(judge.description["tables"].values()) == judge.description["table_bytes"]
    proof = prove_c99(network, tmp_path, events=events_of(counts_of(100, 8, 20)), mutate=False, cost=False)
    assert proof.operation_mismatches == 0
    assert proof.updates_a_sample == proof.n_steps * 75


@compiled
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_valgrind_finds_nothing(tmp_path: Path) -> None:
    from snnsim.export.c99_judge import pack_samples

    write_c99(rich_network(1), tmp_path, images=False)
    with C99Judge(tmp_path, flags=("-std=c99", "-O1", "-g")) as judge:
        options = ("--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=all", "--track-origins=yes")
        done = judge.execute(pack_samples(counts_of(40, 2, 16)), "valgrind", *options)
        assert b"ERROR SUMMARY: 0 errors" in done.stderr
        assert b"no leaks are possible" in done.stderr or b"definitely lost: 0 bytes" in done.stderr


@compiled
def test_unknown_units_are_refused_and_change_nothing(tmp_path: Path) -> None:
    write_c99(layered(), tmp_path, images=False)
    main = tmp_path / "try.c"
    main.write_text(
        '#include "snn.h"\nint main(void) { uint16_t good[2] = {0, 19}, bad[2] = {0, 20};\nsnn_reset();\n'
        "if (snn_step(bad, 2) != -1) return 1;\nif (snn_step(0, 0) != 0) return 2;\n"
        "if (snn_step(good, 2) != 0) return 3;\nreturn snn_best() < SNN_CLASSES ? 0 : 4; }\n"
    )
    command = [find_compiler().command, "-std=c99", "-Wall", "-Werror", "try.c", "snn.c", "-o", "try"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([str(tmp_path / "try")], check=False).returncode == 0


def test_sources_need_nothing_but_stdint(tmp_path: Path) -> None:
    write_c99(rich_network(1), tmp_path)
    text = (tmp_path / "snn.h").read_text() + (tmp_path / "snn.c").read_text()
    assert set(re.findall(r"#include (\S+)", text)) == {"<stdint.h>", '"snn.h"', "<avr/pgmspace.h>"}
    assert "malloc" not in text
    assert "static const int8_t snn_weight_0" in text


def test_equal_parameters_are_stored_once_and_rings_are_as_long_as_their_delays() -> None:
    network, _ = quantize(layered(), "fixed8", options=QuantizeOptions(scale="layer"))
    a, b, out = lay_out(network).populations
    assert a.parameters["v_threshold"] == int(network.population("a").parameters["v_threshold"][0])
    assert not isinstance(a.parameters["beta"], int)
    assert isinstance(b.parameters["beta"], int)
    assert (a.slots, b.slots, out.slots) == (12, 7, 1)  # b: a current gets its arrivals one step later
    assert a.left_bits == 8
    assert b.left_bits == 0


def test_memory_images_are_read_back(tmp_path: Path) -> None:
    network, _ = quantize(rich_network(4), "fixed8")
    write_c99(network, tmp_path)
    index, tables = read_images(tmp_path / "memory")
    for number, (item, row) in enumerate(zip(network.projections, index["projections"], strict=True)):
        weight = tables[f"weight_{number}"]
        if row["unit"] is None:
            place = item.sources() * row["n_target"] + item.unit
            assert np.array_equal(weight[place], item.weight)
            assert np.count_nonzero(weight) == item.n_synapses
        else:
            assert np.array_equal(tables[row["begin"]], item.indptr)
            assert np.array_equal(tables[row["unit"]], item.unit)
            assert np.array_equal(weight, item.weight)
            place = np.arange(item.n_synapses)
        delay = row["delay"]
        found = tables[delay][place] if isinstance(delay, str) else np.full(place.size, delay)
        assert np.array_equal(found, item.delay)
    lines = (tmp_path / "memory" / "weight_0.mem").read_text().splitlines()
    assert re.fullmatch("[0-9a-f]{2}", lines[1])
    for row in index["populations"]:
        item = network.population(row["name"].replace("late_1", "late 1"))
        for name, value in row["parameters"].items():
            words = tables[value] if isinstance(value, str) else value
            assert np.array_equal(np.broadcast_to(words, item.size), item.parameters[name])


def test_damaged_images_are_refused(tmp_path: Path) -> None:
    write_c99(layered(), tmp_path)
    folder = tmp_path / "memory"
    path = folder / "weight_0.mem"
    text = path.read_text()
    path.write_text(text.replace(text.splitlines()[1], "7e", 1) + "\n")
    with pytest.raises(SnnsimFileError, match=r"weight_0.*SHA-256"):
        read_images(folder)
    path.unlink()
    with pytest.raises(SnnsimFileError, match=r"weight_0.*cannot be read"):
        read_images(folder)
    (folder / "index.json").write_text("{}")
    with pytest.raises(SnnsimFileError, match="expected an index"):
        read_images(folder)
    with pytest.raises(SnnsimFileError, match="expected an index"):
        read_images(tmp_path / "nowhere")


@pytest.mark.parametrize("prefix", ["", "1a", "_a", "a-b", "a b", "ä", "x" * 40, None])
def test_names_that_are_not_names_in_c_are_refused(prefix: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prefix: expected a letter"):
        write_c99(layered(), tmp_path, prefix=prefix)


@compiled
def test_odd_names_of_populations_become_names_in_c(tmp_path: Path) -> None:
    given = layered()
    odd = {"a": "a b*", "b": "ä-1", "out": "steps", "in": "int"}
    populations = tuple(replace(item, name=odd[item.name]) for item in given.populations)
    projections = tuple(replace(p, source=odd[p.source], target=odd[p.target]) for p in given.projections)
    network = Network(populations, projections, (Input("int", 20),), Readout("steps"), DT)
    report = write_c99(network, tmp_path, prefix="int")
    assert any("a b* is called" in sentence for sentence in report.changes)
    proof = prove_c99(network, tmp_path, events=events_of(counts_of(60, 4, 20)), mutate=False, cost=False)
    assert proof.mismatches == 0
    assert min(proof.spikes.values()) > 50


def test_what_c99_cannot_hold_is_refused(tmp_path: Path) -> None:
    whole, _ = quantize(layered(), "fixed8")
    with pytest.raises(InputError, match=r"max_count 60000: sums of int32 hold at most \d+"):
        write_c99(whole, tmp_path, counts=60000)
    with pytest.raises(InputError, match="weight_bits: expected 8 or 16, got 4"):
        write_c99(layered(), tmp_path, weight_bits=4)
    with pytest.raises(InputError, match="softmax needs membranes"):
        write_c99(whole.replace(readout=Readout("out")), tmp_path)
    with pytest.raises(InputError, match="expected an integer network"):
        lay_out(layered())  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_c99(whole, tmp_path / "file")
    with pytest.raises(InputError, match="expected a float network"):
        export_network(whole, "nir", tmp_path / "x.nir")
    with pytest.raises(SnnsimFileError, match="expected the folder of a c99 export"):
        C99Judge(tmp_path)


def test_without_a_compiler_nothing_is_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(CompilerMissingError, match=r"no C compiler found \(\$CC is 'no-such-compiler'"):
        find_compiler()
    network = layered()
    export_network(network, "c99", tmp_path)
    proof = prove_export(network, "c99", tmp_path)
    assert not proof.holds
    assert proof.sentences()[0].startswith("Not proven: no C compiler found")
    saved = json.loads(proof.save(tmp_path / "proof.json").read_text())
    assert saved["holds"] is False
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompilerMissingError, match="looked for cc, gcc and clang"):
        find_compiler()


@compiled
def test_a_compiler_that_refuses_is_quoted(tmp_path: Path) -> None:
    write_c99(layered(), tmp_path)
    with (tmp_path / "snn.c").open("a") as stream:
        stream.write("int broken(void) { return 1 }\n")
    with pytest.raises(InputError, match=r"refuses the sources: .*error"):
        C99Judge(tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.snn.h5"
    layered().save(path)
    return path


@compiled
def test_command_proves_and_catches_planted_errors(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way: 200 samples and a million neuron-steps equal, three planted errors found, figures written."""
    out = saved.parent / "c"
    words = ["export", str(saved), "--target", "c99", "--out", str(out), "--check", "--prefix", "tiny", "--json"]
    assert run_command(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["proof_holds"] is True
    assert said["mismatches"] == 0
    assert any("Constant tables take" in sentence for sentence in said["changes"])
    names = {"tiny.h", "tiny.c", "tiny_host.c", "export.json", "proof.json", "memory", "network.int.h5"}
    assert {path.name for path in out.iterdir()} == names
    proof = json.loads((out / "proof.json").read_text())
    assert proof["holds"] is True
    assert proof["n_samples"] >= 200
    assert proof["compared"] >= 1_000_000
    assert [item["kind"] for item in proof["mutations"]] == ["delay", "weight", "reset"]
    assert all(item["caught"] for item in proof["mutations"])
    assert proof["compiler"]["version"] == find_compiler().version
    assert "-Werror" in proof["compiler"]["flags"]
    assert re.fullmatch("[0-9a-f]{64}", proof["inputs_sha256"])
    assert proof["first_difference"] is None
    if shutil.which("valgrind"):
        assert proof["instructions_a_sample"] > proof["operations_a_sample"] > 1000
    again = saved.parent / "again"
    words = ["export", str(out / "network.int.h5"), "--target", "c99", "--out", str(again), "--prefix", "tiny"]
    assert run_command(words) == 0
    assert (again / "tiny.c").read_text() == (out / "tiny.c").read_text()


@compiled
def test_a_program_that_takes_too_long_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_c99(layered(), tmp_path)
    with C99Judge(tmp_path) as judge:
        monkeypatch.setattr("snnsim.export.c99_judge.SECONDS", 1e-4)
        with pytest.raises(InputError, match=r"the program took longer than 0\.0001 s"):
            judge.execute(b"")
        with pytest.raises(InputError, match=r"took longer than 0\.0001 s; prune the network"):
            judge.symbols()


def test_only_a_folder_of_an_earlier_export_is_written_again(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody's files stay as they are; an earlier export leaves nothing behind that the new one does not hold."""
    mine = saved.parent / "mine"
    mine.mkdir()
    for name in ("snn.c", "export.json"):
        (mine / name).write_text("mine")
    words = ["export", str(saved), "--target", "c99", "--out"]
    assert run_command([*words, str(mine)]) == 2
    assert "holds something else than a C99 export; choose a new folder" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in mine.iterdir()} == {"snn.c": "mine", "export.json": "mine"}
    out = saved.parent / "out"
    assert run_command([*words, str(out), "--prefix", "first"]) == 0
    (out / "proof.json").write_text("of the first")
    (out / "notes.txt").write_text("mine")
    (out / "memory" / "gone.mem").write_text("of another network")
    assert run_command([*words, str(out), "--prefix", "second"]) == 0
    names = {"second.h", "second.c", "second_host.c", "export.json", "memory", "network.int.h5", "notes.txt"}
    assert {path.name for path in out.iterdir()} == names
    assert not (out / "memory" / "gone.mem").exists()


def test_a_broken_off_export_is_written_anew(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a killed export left does not block its folder, and nobody takes it for an export."""
    out = saved.parent / "out"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("snnsim.export.c99.write_images", killed)
        assert run_command(["export", str(saved), "--target", "c99", "--out", str(out), "--prefix", "first"]) != 0
    assert {"first.h", "first.c", "export.json"} <= {path.name for path in out.iterdir()}
    with pytest.raises(SnnsimFileError, match="expected the folder of a c99 export"):
        C99Judge(out)
    capsys.readouterr()
    assert run_command(["export", str(saved), "--target", "c99", "--out", str(out), "--prefix", "second"]) == 0
    assert not [path for path in out.iterdir() if path.name.startswith("first")]


def test_command_refuses_options_of_other_targets(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--target", "c99", "--delays", "error"], ["--prefix", "x"]):
        assert run_command(["export", str(saved), "--out", str(saved.parent / "o"), *words]) == 2
        assert "this is an option of --target" in capsys.readouterr().err
