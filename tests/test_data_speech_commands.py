"""Speech Commands folders: official lists, the delay paper's log-mel frames, frames in batches, cochlea spikes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from snnsim.datasets import Augment, BatchStream, frame, open_dataset, split_validation
from snnsim.datasets.frames import Frames
from snnsim.datasets.speech_commands import list_speech_commands, log_mel, mel_filters, open_speech_commands, sinc_half
from snnsim.errors import InputError, SnnsimFileError
from snnsim.files import cache_folder

SPEAKERS = ("0a1b", "77ff", "c3d4")
VALID = ["no/77ff_nohash_0.wav", "yes/77ff_nohash_0.wav"]
TEST = ["no/c3d4_nohash_0.wav", "yes/c3d4_nohash_0.wav"]


def sweep(seconds: float = 0.75) -> np.ndarray:
    t = np.arange(int(16000 * seconds)) / 16000
    return 0.3 * np.sin(2 * np.pi * (200 * t + 1500 * t**2))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "speech"
    for w, word in enumerate(("yes", "no")):
        (home / word).mkdir(parents=True)
        for s, speaker in enumerate(SPEAKERS):
            for take in range(2 if s == 0 else 1):
                sound = (20000 * sweep(0.5 + 0.1 * s + 0.05 * take)[:: 1 - 2 * w]).astype(np.int16)
                wavfile.write(home / word / f"{speaker}_nohash_{take}.wav", 16000, sound)
    (home / "_background_noise_").mkdir()
    wavfile.write(home / "_background_noise_" / "hum.wav", 16000, np.zeros(16000, np.int16))
    (home / "validation_list.txt").write_text("\n".join(VALID) + "\n")
    (home / "testing_list.txt").write_text("\n".join(TEST) + "\n")
    return home


def test_log_mel_equals_the_papers_transforms() -> None:
    """Golden values: torchaudio 2.11's functional code (resample, spectrogram, mel, decibel) on the same sweep."""
    golden = {
        (0, 0): 11.549,
        (0, 5): 18.599,
        (0, 21): -3.934,
        (0, 40): -16.351,
        (0, 60): -24.653,
        (0, 80): -29.811,
        (10, 21): 23.752,
        (50, 60): -40.520,
        (74, 0): -33.397,
        (74, 21): -32.732,
        (74, 60): -14.947,
        (74, 80): -20.400,
    }
    frames = log_mel(sweep(), 16000)
    assert frames.shape == (101, 140)
    assert frames.dtype == np.float32
    for (time, band), value in golden.items():
        assert abs(float(frames[time, band]) - value) < 0.01, (time, band)
    assert (frames[:, 90:] == -100).all()  # above the band that 8 kHz sound has
    assert (frames[100] == -100).all()  # silence


def test_halving_the_rate_and_the_filters_equal_the_papers() -> None:
    half = sinc_half(np.pad(sweep(), (0, 4000)))
    assert half.size == 8000
    assert np.allclose(half[:4], [0.003938924, 0.046386350, 0.093223743, 0.136466965], atol=1e-6)
    assert np.allclose(half[3000:3003], [-0.114903788, 0.181261241, 0.298159391], atol=1e-6)
    filters = mel_filters()
    assert filters.shape == (129, 140)
    assert abs(filters[5, 6] - 0.27608526) < 2e-5
    assert int((filters.max(axis=0) == 0).sum()) == 53


def test_sound_is_padded_or_cut_to_one_second_and_other_rates_are_refused() -> None:
    long = np.concatenate([sweep(0.75), np.zeros(4000), np.ones(500)])
    assert np.array_equal(log_mel(long, 16000), log_mel(sweep(), 16000))
    with pytest.raises(InputError, match="expected sound at 16000 Hz, got 8000 Hz"):
        log_mel(sweep(), 8000)


def test_the_official_lists_make_the_parts(folder: Path) -> None:
    clips, words = list_speech_commands(folder)
    assert words == ("no", "yes")
    assert list(clips["valid"].files) == VALID
    assert list(clips["test"].files) == TEST
    assert len(clips["train"].files) == 4
    assert set(clips["train"].speakers) == {0}
    data = open_dataset(folder)
    assert isinstance(data.train, Frames)
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 4, "valid": 2, "test": 2}
    assert (data.n_units, data.n_classes, data.class_names) == (140, 2, ("no", "yes"))
    assert data.valid is not None
    assert data.valid.labels.tolist() == [0, 1]
    assert data.unseen_speakers == (2,)
    assert "official" in split_validation(data)[2]
    again = open_dataset(folder)
    assert again.train == data.train
    assert again.digest == data.digest


def test_frames_train_like_events_do(folder: Path) -> None:
    data = open_dataset(folder)
    train = data.train
    assert isinstance(train, Frames)
    assert frame(train, "zero", dt=0.01) is train
    stream = BatchStream(train, 0.01, 3, tail_steps=5, seed=1)
    seen = []
    for batch in stream.epoch(0):
        assert batch.x.shape == (106, len(batch), 140)
        assert batch.n_steps.tolist() == [106] * len(batch)
        assert batch.mask.all()
        for b, i in enumerate(batch.sample_id):
            assert np.array_equal(batch.x[:101, b], train.values[i])
            assert not batch.x[101:, b].any()
            assert batch.labels[b] == train.labels[i]
        seen += batch.sample_id.tolist()
    assert sorted(seen) == [0, 1, 2, 3]
    part = train.subset([2, 0])
    assert part.sample_ids.tolist() == [2, 0]
    assert np.array_equal(part.values[0], train.values[2])
    assert train[3].labels[0] == train.labels[3]
    assert part != train


def test_frames_refuse_what_they_cannot_do(folder: Path) -> None:
    train = open_dataset(folder).train
    for call, sentence in (
        (lambda: train.times, "dense frames, not events"),
        (lambda: train.units, "--audio cochlea"),
        (lambda: train.widen(150), "cannot be given 150"),
        (lambda: train.subset([9]), r"indices in \[0, 4\)"),
        (lambda: BatchStream(train, 0.005, 2), "set data.dt to 0.01"),
        (lambda: BatchStream(train, 0.01, 2, pool=5), "are not pooled"),
        (lambda: BatchStream(train, 0.01, 2, augment=Augment(drop=0.1)), "act on events, not on frames"),
        (lambda: Frames.build(np.zeros((2, 3), np.float32), [0, 1], 0.01), "Frames: expected float32"),
        (lambda: Frames.build(np.zeros((2, 3, 4), np.float32), [0], 0.01), "one entry a sample"),
    ):
        with pytest.raises(InputError, match=sentence):
            call()


def test_incomplete_folders_are_refused_and_leave_nothing(folder: Path) -> None:
    wavfile.write(folder / "no" / "0a1b_nohash_0.wav", 8000, np.zeros(8000, np.int16))
    with pytest.raises(InputError, match="expected sound at 16000 Hz"):
        open_dataset(folder)
    (folder / "no" / "0a1b_nohash_0.wav").write_bytes(b"RIFF")
    with pytest.raises(SnnsimFileError, match=r"0a1b_nohash_0.wav"):
        open_dataset(folder)
    assert not list((cache_folder() / "events").glob("*.snnev"))
    (folder / "testing_list.txt").write_text("yes/ffff_nohash_0.wav\n")
    with pytest.raises(SnnsimFileError, match=r"yes/ffff_nohash_0.wav: is listed but not there"):
        open_dataset(folder)
    with pytest.raises(InputError, match="expected 'log-mel' or 'cochlea'"):
        open_speech_commands(folder, audio="mfcc")  # type: ignore[arg-type]


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sound_becomes_cochlea_spikes(real: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from snnsim.datasets import cochlea

    def quick(
        paths: list[Path], *, names: list[str], encoder: object, notice: object
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for path, name in zip(paths, names, strict=True):
            assert str(path).endswith(f"{name}.wav")
            size = 300 + wavfile.read(path)[1].size % 97
            yield np.linspace(0.0, 1.05, size), np.arange(size, dtype=np.int32)

    if not real:
        monkeypatch.setattr(cochlea, "encode_files", quick)
    steps: list[tuple[int, int]] = []
    data = open_speech_commands(folder, audio="cochlea", progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (8, 8)
    assert not isinstance(data.train, Frames)
    assert data.n_units == 700
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert (data.train.counts > 200).all()
    assert (data.train.duration >= 1.0).all()
    assert data.train.times.max() < data.train.duration.max()
    assert open_speech_commands(folder, audio="cochlea").train == data.train
