"""Google Speech Commands: folders of one-second words, with their official lists.

``FOLDER/<word>/<speaker>_nohash_<take>.wav``, ``validation_list.txt`` and ``testing_list.txt``; everything not listed
is for training. The sound becomes the 140-band log-mel frames of the delay papers, or cochlea spikes.

Sources: Warden, "Speech Commands: a dataset for limited-vocabulary speech recognition", 2018; Hammouamri,
Khalfaoui-Hassani and Masquelier, 2024 (frames).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from snnsim.datasets.audio import read_audio
from snnsim.datasets.cache import EventWriter, cached_events
from snnsim.datasets.dataset import Dataset
from snnsim.datasets.frames import cached_frames, write_frames
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events, default_duration
from snnsim.files import canonical_json, sha256_bytes

__all__ = ["is_speech_commands", "list_speech_commands", "log_mel", "mel_filters", "open_speech_commands", "sinc_half"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

RATE = 16_000
N_FFT, HOP, N_MELS, F_MIN, F_MAX = 256, 80, 140, 50.0, 14_000.0
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
BLOCK = 64


@dataclass(frozen=True)
class Clips:
    """The sound files of one part.

    Attributes:
        files: Paths relative to the folder, sorted.
        labels: int64, shape (n,).
        speakers: int64, shape (n,): number of the speaker in the sorted list of all speakers.
    """

    files: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    speakers: npt.NDArray[np.int64]


def is_speech_commands(folder: str | Path) -> bool:
    """Return whether a folder holds the two official lists."""
    return all((Path(folder) / name).is_file() for name in LISTS.values())


def list_speech_commands(folder: str | Path) -> tuple[dict[str, Clips], tuple[str, ...]]:
    """List the clips of each part and the words.

    Raises:
        SnnsimFileError: The lists or the sound files are missing, or a listed file is.
    """
    folder = Path(folder)
    try:
        words = tuple(
            sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith(("_", ".")))
        )
        found = {f"{word}/{item.name}" for word in words for item in (folder / word).iterdir()}
        found = {name for name in found if name.endswith(".wav") and "_nohash_" in name}
        listed = {part: _read_list(folder / name) for part, name in LISTS.items()}
    except OSError as error:
        raise SnnsimFileError(folder, "", f"cannot be listed ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SnnsimFileError(folder, "", "has a list that is not text; get it again") from error
    if not found:
        raise SnnsimFileError(folder, "", "holds no files like <word>/<speaker>_nohash_0.wav; expected Speech Commands")
    for part, names in listed.items():
        missing = sorted(names - found)
        if missing:
            raise SnnsimFileError(
                folder / LISTS[part], missing[0], f"is listed but not there ({len(missing)} such files); get it again"
            )
    parts = {"train": found - listed["valid"] - listed["test"], **listed}
    speakers = {name: i for i, name in enumerate(sorted({_speaker(file) for file in found}))}
    clips = {}
    for part, names in parts.items():
        files = tuple(sorted(names))
        clips[part] = Clips(
            files,
            np.array([words.index(file.split("/")[0]) for file in files], dtype=np.int64),
            np.array([speakers[_speaker(file)] for file in files], dtype=np.int64),
        )
    return clips, words


def _read_list(path: Path) -> set[str]:
    return {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}


def _speaker(file: str) -> str:
    return file.split("/")[1].split("_nohash_")[0]


def open_speech_commands(
    folder: str | Path,
    *,
    audio: Literal["log-mel", "cochlea"] = "log-mel",
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Dataset:
    """Open a folder of Speech Commands.

    The first time, all sound is converted and kept in the cache (100 000 clips: minutes for log-mel, longer for
    cochlea). The cache is keyed by names, sizes and time stamps of the files, not by their content.

    Args:
        folder: See the module.
        audio: ``"log-mel"`` gives :class:`~snnsim.datasets.frames.Frames`, ``"cochlea"`` 700-channel events.
        progress: Called with clips done and clips in all.
        notice: Told before something that takes many seconds once, see :func:`snnsim.datasets.cochlea.encode`.

    Raises:
        SnnsimFileError: The folder is incomplete, or a sound file is damaged.
        InputError: ``audio`` is neither.
    """
    if audio not in ("log-mel", "cochlea"):
        raise InputError(f"audio: expected 'log-mel' or 'cochlea', got {audio!r}")
    folder = Path(folder)
    clips, words = list_speech_commands(folder)
    total = sum(len(part.files) for part in clips.values())
    digests: dict[str, str] = {}
    parts: dict[str, Events] = {}
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    for name, part in clips.items():
        stamps = [(file, *_stamp(folder / file)) for file in part.files]
        digests[name] = sha256_bytes(canonical_json([stamps, list(words)]).encode())
        key = {"reader": f"speech-commands {audio}", "version": 1, "listing": digests[name]}
        if not part.files:
            continue
        if audio == "log-mel":
            parts[name] = _mel_part(folder, part, words, key, report)
        else:
            parts[name] = _cochlea_part(folder, part, words, key, report, notice)
    if "train" not in parts:
        raise SnnsimFileError(folder, "", "has no clips outside the validation and testing lists")
    return Dataset(
        name="speech-commands",
        train=parts["train"],
        test=parts.get("test"),
        valid=parts.get("valid"),
        digest=sha256_bytes(canonical_json({"audio": audio, **digests}).encode()),
        source=str(folder),
        notes={"audio": audio, "clips": {name: len(part.files) for name, part in clips.items()}},
    )


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _mel_part(
    folder: Path, part: Clips, words: tuple[str, ...], key: dict[str, object], report: Callable[[int], None]
) -> Events:
    def blocks() -> Iterator[Float32]:
        for start in range(0, len(part.files), BLOCK):
            files = part.files[start : start + BLOCK]
            yield np.stack([log_mel(*read_audio(folder / file)) for file in files])
            report(len(files))

    def build(target: Path) -> None:
        write_frames(target, blocks(), part.labels, 0.01, speakers=part.speakers, class_names=words)

    return cached_frames(key, build)


def _cochlea_part(
    folder: Path,
    part: Clips,
    words: tuple[str, ...],
    key: dict[str, object],
    report: Callable[[int], None],
    notice: Callable[[str], None] | None,
) -> Events:
    def build(target: Path) -> None:
        from snnsim.datasets.cochlea import Encoder, encode_files

        encoder = Encoder()
        counts, last = [], []
        names = [file.removesuffix(".wav") for file in part.files]
        paths = [folder / file for file in part.files]
        with EventWriter(target) as writer:
            for times, units in encode_files(paths, names=names, encoder=encoder, notice=notice):
                writer.append(times, units)
                counts.append(times.size)
                last.append(times[-1] if times.size else 0.0)
                report(1)
            n = len(counts)
            writer.finish(
                offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)]),
                labels=part.labels,
                n_units=encoder.channels,
                duration=np.maximum(1.0, default_duration(last)),
                sample_ids=np.arange(n, dtype=np.int64),
                speakers=part.speakers,
                class_names=words,
            )

    return cached_events(key, build)


def log_mel(waveform: Float64, rate: int) -> Float32:
    """Turn one clip into the frames of the delay paper.

    Padded or cut to 1 s at 16 kHz; 8 kHz by windowed sinc (Hann, 6 zero crossings, roll-off 0.99); power spectrum of
    periodic Hann windows of 256 samples every 80 (10 ms), centred, mirrored at the ends; 140 triangular bands on the
    HTK mel scale from 50 to 14000 Hz, not normalised; decibels ``10 log10(max(power, 1e-10))``. Bands above 4 kHz, and
    those narrower than the spacing of the spectrum that hold no line of it, are constant -100 dB, as in the paper.

    Args:
        waveform: Samples, full scale 1, shape (n_samples,).
        rate: Sampling rate; 16000 Hz is expected.

    Returns:
        float32, shape (101, 140).

    Raises:
        InputError: Another sampling rate.
    """
    if rate != RATE:
        raise InputError(f"Speech Commands: expected sound at {RATE} Hz, got {rate} Hz")
    sound = np.zeros(RATE)
    sound[: min(RATE, waveform.size)] = waveform[:RATE]
    half = sinc_half(sound)
    padded = np.pad(half, N_FFT // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP] * window
    from scipy.fft import rfft

    power = np.abs(rfft(pieces, axis=1)) ** 2
    return np.asarray(10.0 * np.log10(np.maximum(power @ mel_filters(), 1e-10)), dtype=np.float32)


def sinc_half(sound: Float64) -> Float64:
    """Halve the sampling rate by a sinc of 6 zero crossings under a Hann window, cut-off at 0.99 of the new limit."""
    kernel, width = _sinc_kernel()
    padded = np.pad(sound, (width, width + 2))
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, kernel.size)[::2] @ kernel)[
        : -(-sound.size // 2)
    ]


@lru_cache(maxsize=1)
def _sinc_kernel() -> tuple[Float64, int]:
    crossings, cut = 6, 0.99
    width = int(np.ceil(crossings * 2 / cut))
    t = np.clip(np.arange(-width, width + 2) / 2 * cut, -crossings, crossings)
    kernel = np.sinc(t) * np.cos(t * np.pi / crossings / 2) ** 2 * (cut / 2)
    return kernel, width


@lru_cache(maxsize=1)
def mel_filters() -> Float64:
    """Return the triangular filters, float64, shape (129, 140): ``power @ filters`` gives the bands."""
    lines = np.linspace(0, RATE // 4, N_FFT // 2 + 1)
    low, high = (2595.0 * np.log10(1.0 + f / 700.0) for f in (F_MIN, F_MAX))
    edges = 700.0 * (10.0 ** (np.linspace(low, high, N_MELS + 2) / 2595.0) - 1.0)
    width = np.diff(edges)
    slope = edges[None, :] - lines[:, None]
    return np.maximum(0.0, np.minimum(-slope[:, :-2] / width[:-1], slope[:, 2:] / width[1:]))
