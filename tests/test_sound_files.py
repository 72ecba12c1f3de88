"""Spike files in SHD's layout, names of recordings, and the encode command."""

import gzip
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from snnsim.cli.main import run
from snnsim.datasets.heidelberg import read_heidelberg
from snnsim.datasets.heidelberg_write import half_precision, write_spike_file
from snnsim.datasets.recordings import NamePattern, Recording, Rule, class_order, find_audio
from snnsim.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path_factory.mktemp("cache")))


RATE = 8000


def write_wav(path: Path, seed: int = 0, seconds: float = 0.2) -> Path:
    from scipy.io import wavfile

    time = np.arange(int(seconds * RATE)) / RATE
    sound = np.sin(2 * np.pi * (200 + 30 * seed) * time) + np.random.default_rng(seed).normal(0, 0.2, time.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, RATE, (sound * 8000).astype(np.int16))
    return path


def clips(n: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(3)
    sizes = [5, 0, 30, 12][:n]
    return [(np.sort(generator.uniform(0, 1.5, size)), generator.integers(0, 50, size)) for size in sizes]


def test_half_precision_orders_what_has_become_simultaneous() -> None:
    times, units = half_precision([0.60001, 0.60002, 0.60003], [30, 20, 10])
    assert times.dtype == np.float16
    assert units.dtype == np.uint16
    assert units.tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("times", "units", "message"),
    [
        ([0.1], [1, 2], "as many times as units"),
        ([np.nan], [1], "times from 0 to 60000 s"),
        ([-0.1], [1], "times from 0 to 60000 s"),
        ([70_000.0], [1], "times from 0 to 60000 s"),
        ([0.1], [70_000], "units from 0 to 65535"),
        ([0.1], [-1], "units from 0 to 65535"),
    ],
)
def test_spikes_that_the_layout_cannot_hold_are_refused(times: list, units: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        half_precision(times, units)


@pytest.mark.parametrize("name", ["a.h5", "a.h5.gz"])
def test_a_file_reads_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    made = clips()
    arguments = {"n_units": 50, "keys": ["zero", "fünf"], "speakers": [0, 1, 0, 1], "recordings": [9, 8, 7, 6]}
    meta = {"gender": ["female", "male"]}
    number = write_spike_file(path, made, [0, 1, 1, 0], **arguments, meta_info=meta, attributes={"made": {"by": 1}})
    assert number == 47
    events = read_heidelberg(path)
    assert events.n_units == 50
    assert events.class_names == ("zero", "fünf")
    assert events.labels.tolist() == [0, 1, 1, 0]
    assert events.speakers is not None
    assert events.speakers.tolist() == [0, 1, 0, 1]
    assert events.recordings is not None
    assert events.recordings.tolist() == [9, 8, 7, 6]
    for i, (times, units) in enumerate(made):
        expected_times, expected_units = half_precision(times, units)
        here = slice(events.offsets[i], events.offsets[i + 1])
        np.testing.assert_array_equal(events.times[here], expected_times.astype(np.float64))
        np.testing.assert_array_equal(events.units[here], expected_units)
    plain = tmp_path / "plain.h5"
    plain.write_bytes(gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes())
    with h5py.File(plain) as file:
        assert file["extra/meta_info/gender"][:].tolist() == [b"female", b"male"]
        assert json.loads(file.attrs["made"]) == {"by": 1}
        assert file["spikes/times"][0].dtype == np.float16
        assert file["spikes/units"][0].dtype == np.uint16
        assert file["labels"].dtype == np.uint16


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for suffix in (".h5", ".h5.gz"):
        paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
        for path in paths:
            write_spike_file(path, clips(), [0, 0, 0, 0], n_units=50, keys=["x"])
        assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("labels", "change", "message"),
    [
        ([0, 0, 0], {}, r"clips: expected one a label \(3\), got more"),
        ([0] * 5, {}, r"clips: expected one a label \(5\), got 4"),
        ([0, 0, 0, 2], {}, "labels: class 2 has no name; 1 names were given"),
        ([0, 0, 0, -1], {}, "labels: expected whole numbers from 0 to 65535"),
        ([0, 0, 0, 0], {"n_units": 10}, "is not below n_units, 10"),
        ([0, 0, 0, 0], {"speakers": [1]}, r"speakers: expected one value a clip, shape \(4,\)"),
    ],
)
def test_content_that_does_not_fit_leaves_nothing_behind(
    tmp_path: Path, labels: list[int], change: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_spike_file(tmp_path / "a.h5", clips(), labels, **({"n_units": 50, "keys": ["x"]} | change))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_names_are_read_by_a_pattern() -> None:
    found = NamePattern("{label}_{speaker}_{index}").read(Path("x/7_jackson_32.wav"))
    assert (found.label, found.speaker, found.index) == ("7", "jackson", 32)
    found = NamePattern("{label}/{speaker}_nohash_{index}").read(Path("data/yes/0a7c_nohash_1.wav"))
    assert (found.label, found.speaker, found.index) == ("yes", "0a7c", 1)
    found = NamePattern("lang-{skip}_speaker-{speaker}_trial-{skip}_digit-{label}").read(
        Path("lang-english_speaker-00_trial-0_digit-0.flac")
    )
    assert (found.label, found.speaker, found.index) == ("0", "00", None)
    assert NamePattern("a.b+{label}").read(Path("a.b+c.wav")).label == "c"  # marks stand for themselves


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{digit}", "expected fields"),
        ("{label}_{label}", "occurs twice"),
        ("{label}{index}", "two fields touch"),
        ("plain", "expected fields in braces"),
        ("{label}_{index", "expected fields in braces"),
        ("", "expected fields in braces"),
    ],
)
def test_patterns_that_mean_nothing_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NamePattern(pattern)


def test_names_off_the_pattern_are_refused() -> None:
    pattern = NamePattern("{label}_{index}")
    for name in ("a.wav", "a_b.wav", "_3.wav"):
        with pytest.raises(InputError, match="does not follow the pattern"):
            pattern.read(Path(name))
    with pytest.raises(InputError, match="index 70000 is above 65535"):
        pattern.read(Path("a_70000.wav"))


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("index<10", True),
        ("index<9", False),
        ("index <= 9", True),
        ("index>9", False),
        ("index>=9", True),
        ("index=3,9", True),
        ("index=09", True),
        ("index!=9", False),
        ("speaker=theo,ada", True),
        ("speaker!=ada", False),
        ("label=seven and index<10", True),
        ("label=seven and index<5", False),
    ],
)
def test_rules_choose(rule: str, holds: bool) -> None:
    assert Rule(rule).holds(Recording(Path("a.wav"), "seven", "ada", 9)) is holds


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("index", "expected FIELD OPERATOR VALUE"),
        ("", "expected FIELD OPERATOR VALUE"),
        ("index<ten", "expected a whole number for index, got 'ten'"),
        ("index<1,2", "compares index with one number"),
        ("speaker<5", "use = or != for speaker"),
        ("__import__('os')", "expected FIELD OPERATOR VALUE"),
        ("index<10 or index>20", "expected FIELD OPERATOR VALUE"),
    ],
)
def test_rules_of_another_form_are_refused(rule: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rule(rule)


def test_a_rule_about_what_names_do_not_say_is_refused() -> None:
    with pytest.raises(InputError, match=r"the name pattern has no \{index\}"):
        Rule("index<10").holds(Recording(Path("a.wav"), "seven"))


def test_classes_are_in_the_order_of_their_value() -> None:
    assert class_order(["10", "2", "1", "2"]) == ["1", "2", "10"]
    assert class_order(["b", "a", "10"]) == ["10", "a", "b"]


def test_sound_files_are_found_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b/2.wav", "a/1.WAV", "a/notes.txt", "b/1.flac"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [str(p.relative_to(tmp_path)) for p in find_audio([tmp_path])] == ["a/1.WAV", "b/1.flac", "b/2.wav"]
    with pytest.raises(InputError, match="given twice"):
        find_audio([tmp_path / "b", tmp_path / "b/2.wav"])
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no sound file"):
        find_audio([tmp_path / "none"])


def test_the_command_makes_a_data_set_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sounds = tmp_path / "sounds"
    for label in (2, 10):
        for speaker in ("zoe", "ann"):
            for index in (3, 12, 13):
                write_wav(sounds / f"{label}_{speaker}_{index}.wav", seed=label + index)
    out = tmp_path / "digits"
    words = ["data", "encode", str(sounds), "--out", str(out), "--name-pattern", "{label}_{speaker}_{index}"]
    words += ["--test", "index<10", "--valid", "index=12", "--channels", "20", "--membrane", "gammatone", "--json"]
    assert run(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["clips"] == {"train": 4, "test": 4, "valid": 4}
    assert answer["n_samples"] == 12
    train, test = (read_heidelberg(out / f"digits_{split}.h5") for split in ("train", "test"))
    assert train.class_names == ("2", "10")
    assert set(train.labels.tolist()) == {0, 1}
    assert train.recordings is not None
    assert set(train.recordings.tolist()) == {13}
    assert test.recordings is not None
    assert set(test.recordings.tolist()) == {3}
    with h5py.File(out / "digits_test.h5") as file:
        assert file["extra/meta_info/speaker_name"][:].tolist() == [b"ann", b"zoe"]
        assert json.loads(file.attrs["encoder"])["membrane"] == "gammatone"
    first = (out / "digits_train.h5").read_bytes()
    shutil.rmtree(out)
    assert run([*words, "--threads", "1"]) == 0
    assert (out / "digits_train.h5").read_bytes() == first


def test_the_command_writes_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = write_wav(tmp_path / "word.wav")
    out = tmp_path / "word.h5"
    assert run(["data", "encode", str(sound), "--out", str(out), "--channels", "16", "--membrane", "gammatone"]) == 0
    captured = capsys.readouterr()
    assert "1 clips" in captured.out
    assert "encoded 1/1 clips" in captured.err
    assert len(read_heidelberg(out)) == 1


def test_the_command_says_what_takes_long_the_first_time_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sounds = [str(write_wav(tmp_path / f"{index}.wav", index)) for index in range(3)]
    heard = []
    for options in ([], [], ["--channels", "4"], ["--membrane", "gammatone"]):
        words = ["data", "encode", *sounds, "--out", str(tmp_path / "all.h5"), "--channels", "3", *options, "--json"]
        assert run(words) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["n_samples"] == 3
        heard.append([line for line in captured.err.splitlines() if "computing the inner ear's response" in line])
    assert [len(lines) for lines in heard] == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "{out}/a.txt"], "expected a file .h5 or .h5.gz"),
        (["--out", "{out}/a.h5", "--test", "index<3"], "give --name-pattern"),
        (
            ["--out", "{out}/a.h5", "--name-pattern", "{label}_{index}", "--test", "index<2"],
            "with --test it is a folder",
        ),
        (["--out", "{out}/d", "--name-pattern", "{label}_{index}", "--test", "index<1"], "no file is for test"),
        (["--out", "{out}/a.h5", "--name-pattern", "{label}_{index}", "--valid", "index<1"], "give --test as well"),
        (["--out", "{out}/a.h5", "--ramp", "long"], "--ramp: expected seconds or 'clip', got 'long'"),
        (["--out", "{out}/a.h5", "--name", "x"], "--name is for the files in a folder"),
        (["--out", "{out}/a.h5", "--max-seconds", "0"], "max_seconds: expected"),
        (["--out", "{out}/a.h5", "--name-pattern", "{label}_{speaker}_{index}"], "does not follow the pattern"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    sounds = [write_wav(tmp_path / "in" / f"a_{index}.wav", index) for index in (1, 2)]
    out = tmp_path / "out"
    out.mkdir()
    words = [option.replace("{out}", str(out)) for option in options]
    assert run(["data", "encode", *map(str, sounds), *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""
    assert list(out.iterdir()) == []
