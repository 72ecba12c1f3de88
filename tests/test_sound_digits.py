"""Spoken digits: the speech process, the generator, and the set that comes with the package."""

import gzip
import hashlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from snnsim.cli.main import run
from snnsim.datasets import spoken_digits
from snnsim.datasets.cochlea import Encoder, clip_seed, encode_prepared, prepare
from snnsim.datasets.heidelberg import read_heidelberg
from snnsim.datasets.spoken_digits import SpeechProcess, make_spoken_digits, trim
from snnsim.datasets.spoken_digits_voices import CLASS_NAMES, VOICES, WORDS, Utterance, utterance
from snnsim.errors import InputError, MissingLibraryError

BUILTIN = Path(spoken_digits.__file__).parent / "builtin"
HAS_SPEECH = importlib.util.find_spec("espeakng_loader") is not None
needs_speech = pytest.mark.skipif(not HAS_SPEECH, reason="espeakng-loader is not installed (extra 'speech')")
EAR = Encoder(channels=12, membrane="gammatone", max_seconds=1.2)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def three_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two voices to train on and one to test on, one of them with breath (noise) in it."""
    monkeypatch.setattr(spoken_digits, "VOICES", (VOICES[0], VOICES[2], VOICES[19]))


def test_the_voices_are_many_and_some_are_kept_for_the_test() -> None:
    train = [voice for voice in VOICES if not voice.test]
    test = [voice for voice in VOICES if voice.test]
    assert len(train) >= 10
    assert len(test) >= 2
    assert not {voice.variant for voice in train} & {voice.variant for voice in test}
    assert len({voice.name for voice in VOICES}) == len({voice.variant for voice in VOICES}) == len(VOICES)
    for group in (train, test):
        assert {voice.gender for voice in group} == {"female", "male"}
    assert len({voice.rate for voice in VOICES}) > 5
    assert len({voice.pitch for voice in VOICES}) > 4


def test_the_classes_are_those_of_the_heidelberg_digits() -> None:
    assert CLASS_NAMES[:2] == ("zero", "one")
    assert CLASS_NAMES[10:12] == ("null", "eins")
    assert [language for language, _ in WORDS] == ["en"] * 10 + ["de"] * 10


def test_utterances_differ_and_repeat_exactly() -> None:
    found = [utterance(3, 7, repetition, 0) for repetition in range(30)]
    assert len(set(found)) == 30
    assert found == [utterance(3, 7, repetition, 0) for repetition in range(30)]
    assert utterance(3, 7, 0, 1) != found[0]
    assert len({one.text for one in found}) == 4
    base = VOICES[3]
    assert all(0.85 * base.rate - 1 <= one.rate <= 1.15 * base.rate + 1 for one in found)
    assert all(one.sample_rate % 150 == 0 for one in found)


def test_silence_at_the_ends_is_cut() -> None:
    sound = np.zeros(5000, dtype=np.int16)
    sound[2000:3000] = 1000
    assert trim(sound).size == 1000 + 2 * 220
    assert trim(np.zeros(10, dtype=np.int16)).size == 10
    quiet = sound.copy()
    quiet[:2000] = 5
    assert trim(quiet).size == trim(sound).size


def test_a_missing_synthesiser_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLibraryError, match=r"espeakng-loader: install it with  pip install 'snnsim\[speech\]'"):
        make_spoken_digits(tmp_path / "x", size=1)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("size", ["huge", 0, -1, 10_001, 1.5, "1.5"])
def test_a_size_without_meaning_is_refused(size: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="size: expected one of builtin, small, medium, large or a number"):
        make_spoken_digits(tmp_path, size=size)  # type: ignore[arg-type]


@needs_speech
def test_speech_does_not_depend_on_what_was_said_before() -> None:
    wanted = [utterance(voice, label, 0, 0) for voice in (0, 2, 12, 19) for label in (0, 13)]
    with SpeechProcess() as speech:
        first = [speech.say(one) for one in wanted]
        assert speech.version
        second = [speech.say(one) for one in reversed(wanted)][::-1]
    with SpeechProcess() as speech:
        third = [speech.say(one) for one in wanted]
    for a, b, c in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
        assert a.size > 3000
        assert np.abs(a.astype(np.int64)).max() > 1000
    assert len({a.tobytes() for a in first}) == len(wanted)


@needs_speech
def test_an_unknown_voice_is_refused_and_the_process_goes_on() -> None:
    with SpeechProcess() as speech:
        for voice, message in (("en-us+nobody", "no variant nobody"), ("xx-yy+f1", "no voice xx-yy")):
            with pytest.raises(InputError, match=message):
                speech.say(Utterance(voice, "one", 170, 50, 50, 22_050))
        assert speech.say(utterance(0, 1, 0, 0)).size > 3000


@needs_speech
def test_the_package_never_loads_the_synthesiser() -> None:
    script = """
import sys
from pathlib import Path
from snnsim.datasets.spoken_digits import SpeechProcess
from snnsim.datasets.spoken_digits_voices import utterance
with SpeechProcess() as speech:
    print(speech.say(utterance(0, 1, 0, 0)).size > 0, "espeakng_loader" in sys.modules)
maps = Path("/proc/self/maps")
print("espeak" in maps.read_text() if maps.exists() else False)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["True", "False", "False"]


@needs_speech
@pytest.mark.usefixtures("three_voices")
def test_a_stopped_run_goes_on_to_the_same_files(tmp_path: Path) -> None:
    whole = make_spoken_digits(tmp_path / "whole", size=2, encoder=EAR, threads=1)
    assert (whole.n_train, whole.n_test, whole.reused) == (80, 40, 0)

    def stop(done: int, total: int) -> None:
        assert total == 120
        if done >= 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_spoken_digits(tmp_path / "part", size=2, encoder=EAR, progress=stop)
    assert not list((tmp_path / "part").glob("*.h5"))
    kept = sorted((tmp_path / "part" / ".parts").rglob("*.npz"))
    assert len(kept) == 3
    kept[1].write_bytes(kept[1].read_bytes()[:-500])  # a damaged part is made again
    resumed = make_spoken_digits(tmp_path / "part", size=2, encoder=EAR, threads=2)
    assert resumed.reused == 40
    assert (resumed.speech, resumed.digest) == (whole.speech, whole.digest)
    for name in ("spoken_digits_train.h5", "spoken_digits_test.h5", "manifest.json"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "part" / ".parts").exists()
    manifest = json.loads((tmp_path / "whole" / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((tmp_path / "whole" / name).read_bytes()).hexdigest() == digest

    train, test = (read_heidelberg(tmp_path / "whole" / f"spoken_digits_{split}.h5") for split in ("train", "test"))
    assert train.speakers is not None
    assert test.speakers is not None
    assert set(train.speakers.tolist()) == {0, 1}
    assert set(test.speakers.tolist()) == {2}
    assert Counter(train.labels.tolist()) == dict.fromkeys(range(20), 4)
    assert train.class_names == CLASS_NAMES
    assert train.n_units == 12

    smaller = make_spoken_digits(tmp_path / "smaller", size=1, encoder=EAR)
    first = read_heidelberg(smaller.train)
    n = len(first)
    np.testing.assert_array_equal(first.times, train.times[: train.offsets[n]])  # a larger set begins with a smaller
    np.testing.assert_array_equal(first.units, train.units[: train.offsets[n]])


@needs_speech
@pytest.mark.usefixtures("three_voices")
def test_a_finished_set_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "d"
    first = make_spoken_digits(folder, size=1, encoder=EAR)
    assert not first.unchanged
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    real = spoken_digits._make_part
    made: list[int] = []

    def counting(*arguments: object) -> object:
        made.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(spoken_digits, "_make_part", counting)
    again = make_spoken_digits(folder, size=1, encoder=EAR)
    assert (again.unchanged, again.reused, made) == (True, 60, [])
    assert replace(again, unchanged=False, reused=0) == first
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before

    first.test.write_bytes(first.test.read_bytes()[:-1] + b"x")  # damage: the set is made again
    assert not make_spoken_digits(folder, size=1, encoder=EAR).unchanged
    assert all((folder / name).read_bytes() == old for name, (old, _) in before.items())
    (folder / "manifest.json").write_text("[1]")
    assert not make_spoken_digits(folder, size=1, encoder=EAR).unchanged
    made.clear()
    other: list[dict[str, Any]] = [{"seed": 1}, {"size": 2}, {"pack": True}]
    for change in other:
        assert not make_spoken_digits(folder, **({"size": 1, "encoder": EAR} | change)).unchanged
    assert len(made) == 3 + 6 + 3


@needs_speech
@pytest.mark.usefixtures("three_voices")
def test_the_command_makes_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "make", "spoken-digits", "--out", str(tmp_path / "d"), "--size", "1", "--channels", "8"]
    assert run([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["n_samples"] == 60
    assert answer["known"] == 0
    assert all(Path(path).is_file() for path in answer["files"])
    assert not answer["unchanged"]
    assert run([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"{tmp_path / 'd'} holds this set already and its files are whole: nothing was made\n"
    again = json.loads(captured.out)
    assert again["unchanged"]
    assert {key: again[key] for key in ("n_samples", "spikes", "files", "digest", "speech")} == {
        key: answer[key] for key in ("n_samples", "spikes", "files", "digest", "speech")
    }
    assert run(["data", "make", "spoken-digits", "--out", str(tmp_path / "e"), "--size", "many"]) == 2
    assert "size: expected one of" in capsys.readouterr().err


def stored(split: str) -> h5py.File:
    return h5py.File(io.BytesIO(gzip.decompress((BUILTIN / f"spoken_digits_{split}.h5.gz").read_bytes())))


def test_the_built_in_set_is_small_balanced_and_tests_unseen_voices() -> None:
    assert sum(path.stat().st_size for path in BUILTIN.iterdir()) <= 6_000_000
    train, test = (
        read_heidelberg(BUILTIN / f"spoken_digits_{split}.h5.gz", trusted=True) for split in ("train", "test")
    )
    assert 600 <= len(train) <= 1200
    assert 200 <= len(test) <= 300
    for events in (train, test):
        assert events.n_units == 700
        assert events.class_names == CLASS_NAMES
        assert len(set(Counter(events.labels.tolist()).values())) == 1
    assert train.speakers is not None
    assert test.speakers is not None
    assert len(set(train.speakers.tolist())) >= 10
    assert len(set(test.speakers.tolist())) >= 2
    assert not set(train.speakers.tolist()) & set(test.speakers.tolist())
    counts = np.concatenate([np.diff(train.offsets), np.diff(test.offsets)])
    assert 4500 < counts.mean() < 6500
    assert counts.min() > 1000


def test_the_built_in_files_are_those_of_the_manifest_and_the_card() -> None:
    manifest = json.loads((BUILTIN / "manifest.json").read_text(encoding="utf-8"))
    card = (BUILTIN / "DATA_CARD.md").read_text(encoding="utf-8")
    assert manifest["encoder"] == json.loads(json.dumps(Encoder(max_seconds=1.2).description()))
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((BUILTIN / name).read_bytes()).hexdigest() == digest
        assert digest[:16] in card
    for split, clips in manifest["clips"].items():
        with stored(split) as file:
            assert len(file["labels"]) == clips
            times = np.concatenate(file["spikes/times"][:]).astype(np.float64)
            np.testing.assert_array_equal(times * 1024, np.rint(times * 1024))
            assert f"{times.size / clips:.0f}" in card
    for voice in VOICES:
        assert voice.name in card


@needs_speech
def test_the_synthesiser_still_says_the_built_in_set() -> None:
    parts = json.loads((BUILTIN / "manifest.json").read_text(encoding="utf-8"))["parts"]
    for repetition, voice in ((0, 2), (1, 9), (2, 19)):
        said = hashlib.sha256()
        with SpeechProcess() as speech:
            if f"espeak-ng {speech.version}" != json.loads((BUILTIN / "manifest.json").read_text())["synthesiser"]:
                pytest.skip("another version of the synthesiser")
            for label in range(len(WORDS)):
                request = utterance(voice, label, repetition, 0)
                waveform = trim(speech.say(request))
                head = json.dumps([request.sample_rate, waveform.size], separators=(",", ":")).encode()
                said.update(head + waveform.astype("<i2").tobytes())
        assert said.hexdigest() == parts[f"{repetition:05d}-{voice:03d}"][0]


@needs_speech
@pytest.mark.slow
def test_a_built_in_clip_is_made_again_spike_for_spike(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another kind of processor single spikes may move, so nearly all is enough."""
    settings = Encoder(max_seconds=1.2)
    with SpeechProcess() as speech, stored("test") as file:
        request = utterance(17, 7, 0, 0)
        sound = prepare(trim(speech.say(request)), request.sample_rate, settings)
        times, units = encode_prepared(sound, settings, clip_seed("seven_rosa_0"))
        place = next(
            i
            for i, key in enumerate(zip(file["labels"], file["extra/speaker"], file["extra/index"], strict=True))
            if tuple(map(int, key)) == (7, 17, 0)
        )
        seconds = file["spikes/times"][place].astype(np.float64)
        kept = set(zip((seconds * 1024).tolist(), file["spikes/units"][place].tolist(), strict=True))
    made = set(zip(np.rint(times * 1024).tolist(), units.tolist(), strict=True))
    assert len(made ^ kept) <= 0.005 * len(made)


def test_a_copy_of_the_builtin_folder_is_a_data_set(tmp_path: Path) -> None:
    from snnsim.datasets import open_dataset

    shutil.copytree(BUILTIN, tmp_path / "copy")
    copy = open_dataset(tmp_path / "copy")
    own = open_dataset("spoken-digits")
    assert copy.test is not None
    assert own.test is not None
    assert copy.train == own.train
    assert copy.test == own.test
