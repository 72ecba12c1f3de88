"""Spoken digits of our own: text to speech, then the inner ear, in the file layout of the Heidelberg digits.

Twenty classes (zero to nine in English and German), sixteen voices to train on, four others to test on. Clips are
made in one fixed order, repetition by repetition, so that a larger set begins with the smaller one; every voice of a
repetition is kept as soon as it is done, so that a stopped run continues. Needs the extra ``speech``.

The synthesiser runs in a child process (see :mod:`snnsim.datasets.spoken_digits_child`); this module never loads it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from snnsim.datasets.cochlea import STAGE_RATE, Encoder, clip_seed, encode_prepared, prepare
from snnsim.datasets.cochlea_membrane import Notice
from snnsim.datasets.heidelberg import read_heidelberg
from snnsim.datasets.heidelberg_write import write_spike_file
from snnsim.datasets.spoken_digits_voices import CLASS_NAMES, VOICES, WORDS, Utterance, utterance
from snnsim.errors import InputError, MissingLibraryError
from snnsim.files import atomic_path, canonical_json, sha256_bytes, sha256_file, write_json

__all__ = ["GENERATOR_VERSION", "SIZES", "MadeSet", "SpeechProcess", "make_spoken_digits", "trim"]

GENERATOR_VERSION = 1
SIZES = {"builtin": (2, 3), "small": (5, 5), "medium": (20, 10), "large": (60, 20)}
"""Names of sizes: how often each voice says each word in the training and in the test split. Each time is 320
training or 80 test clips."""

BUILTIN_STEP = 1 / 1024
"""Seconds: spike times of the built-in set are multiples of it, so that its files pack well."""

MAX_SECONDS = 1.2
BUILTIN = Path(__file__).parent / "builtin"


@dataclass(frozen=True)
class MadeSet:
    """What :func:`make_spoken_digits` made.

    Attributes:
        train: Training file.
        test: Test file, unseen voices only.
        n_train: Clips in it.
        n_test: Clips in it.
        spikes: Spikes in both.
        reused: Clips taken over from an earlier, stopped run; all of them if the set was there already.
        unchanged: Whether the folder held this very set, whole, so that nothing was made.
        speech: SHA-256 of all waveforms.
        digest: SHA-256 of all spikes, before times are rounded to float16.
        known: Clips of which the package knows what they must be (those of the built-in set).
        other_speech: How many of them got another waveform here.
        other_spikes: How many of them got other spikes here; the last bits of a Fourier transform may move single
            spikes from one kind of processor to another.
    """

    train: Path
    test: Path
    n_train: int
    n_test: int
    spikes: int
    reused: int
    unchanged: bool
    speech: str
    digest: str
    known: int
    other_speech: int
    other_spikes: int


class SpeechProcess:
    """The text-to-speech child process: one request, one waveform. Use it in a ``with`` block.

    Raises:
        MissingLibraryError: espeakng-loader is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("espeakng_loader") is None:
            raise MissingLibraryError("espeakng-loader", "speech", "making spoken digits")
        self.version = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def __enter__(self) -> SpeechProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> tuple[IO[bytes], IO[bytes]]:
        process = self._process
        if process is None or process.poll() is not None:
            script = Path(__file__).with_name("spoken_digits_child.py")
            process = subprocess.Popen(
                [sys.executable, str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._process = process
            assert process.stdout is not None
            self.version = str(self._header(process.stdout)["version"])
        assert process.stdin is not None
        assert process.stdout is not None
        return process.stdin, process.stdout

    @staticmethod
    def _header(stream: IO[bytes]) -> dict[str, Any]:
        line = stream.readline()
        if not line.endswith(b"\n"):
            raise InputError("the text-to-speech process ended early; reinstall it: pip install 'snnsim[speech]'")
        head: dict[str, Any] = json.loads(line)
        return head

    def say(self, request: Utterance) -> npt.NDArray[np.int16]:
        """Return the samples of one utterance, int16, at the synthesiser's own rate.

        Raises:
            InputError: The synthesiser knows no such voice.
        """
        stdin, stdout = self._start()
        words = {"voice": request.voice, "text": request.text, "rate": request.rate}
        words |= {"pitch": request.pitch, "range": request.spread}
        try:
            stdin.write(json.dumps(words).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise InputError("the text-to-speech process ended; run the command again to continue") from error
        head = self._header(stdout)
        if "error" in head:
            raise InputError(f"text to speech, voice {request.voice}: {head['error']}")
        data = stdout.read(2 * head["samples"])
        return np.frombuffer(data, dtype="<i2").astype(np.int16)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.wait(10)


def trim(waveform: npt.NDArray[np.int16], margin: int = 220) -> npt.NDArray[np.int16]:
    """Cut silence off both ends: all before and after the first and last sample above 1 % of the largest.

    Args:
        waveform: Samples.
        margin: Samples kept around the sound.
    """
    level = np.abs(waveform.astype(np.int32))
    if level.size == 0 or level.max() == 0:
        return waveform
    loud = np.flatnonzero(level > 0.01 * level.max())
    return waveform[max(0, int(loud[0]) - margin) : int(loud[-1]) + 1 + margin]


@dataclass(frozen=True)
class _Part:
    """The clips of one voice in one repetition: 24 kHz sample of each spike, units, spikes a clip, speech hash."""

    samples: npt.NDArray[np.int32]
    units: npt.NDArray[np.uint16]
    counts: npt.NDArray[np.int64]
    speech: str

    def digest(self) -> str:
        state = hashlib.sha256(self.speech.encode())
        for array in (self.samples, self.units, self.counts):
            state.update(np.ascontiguousarray(array).tobytes())
        return state.hexdigest()

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez(
                stream,
                samples=self.samples,
                units=self.units,
                counts=self.counts,
                speech=np.array(self.speech),
                digest=np.array(self.digest()),
            )

    @classmethod
    def load(cls, path: Path) -> _Part | None:
        """Read a part; None if it is missing or not what was written."""
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                part = cls(file["samples"], file["units"], file["counts"], str(file["speech"]))
                return part if part.digest() == str(file["digest"]) else None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None


def _make_part(
    speech: SpeechProcess,
    pool: ThreadPoolExecutor,
    voice: int,
    repetition: int,
    seed: int,
    encoder: Encoder,
    notice: Notice | None,
) -> _Part:
    said = hashlib.sha256()
    jobs = []

    def encode_one(waveform: npt.NDArray[np.int16], rate: int, name: str) -> tuple[Any, Any]:
        sound = prepare(waveform, rate, encoder)
        times, units = encode_prepared(sound, encoder, clip_seed(name, seed), notice=notice)
        return np.rint(times * STAGE_RATE).astype(np.int32), units.astype(np.uint16)

    for label in range(len(WORDS)):
        request = utterance(voice, label, repetition, seed)
        waveform = trim(speech.say(request))
        said.update(canonical_json([request.sample_rate, waveform.size]).encode() + waveform.astype("<i2").tobytes())
        name = f"{CLASS_NAMES[label]}_{VOICES[voice].name}_{repetition}"
        jobs.append(pool.submit(encode_one, waveform, request.sample_rate, name))
    results = [job.result() for job in jobs]
    counts = np.array([samples.size for samples, _ in results], dtype=np.int64)
    samples = np.concatenate([samples for samples, _ in results])
    return _Part(samples, np.concatenate([units for _, units in results]), counts, said.hexdigest())


def make_spoken_digits(
    folder: str | Path,
    *,
    size: int | str = "small",
    seed: int = 0,
    time_step: float | None = None,
    pack: bool = False,
    encoder: Encoder | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Notice | None = None,
) -> MadeSet:
    """Make the set: ``spoken_digits_train.h5``, ``spoken_digits_test.h5`` and ``manifest.json`` in ``folder``.

    Args:
        folder: Where to; made if it is not there. A stopped run with equal settings is continued; a finished one
            whose files are whole is left alone.
        size: Repetitions of each word by each voice (1 to 10 000), or a name in :data:`SIZES`.
        seed: Another seed gives other clips of the same voices.
        time_step: Round spike times to multiples of this many seconds before they become float16.
        pack: Write ``.h5.gz`` files.
        encoder: Settings of the inner ear; default those of :class:`Encoder`, sound cut at 1.2 s.
        threads: Clips encoded at the same time; default one per processor. Does not change the result.
        progress: Called with (clips done, clips in all).
        notice: See :func:`snnsim.datasets.cochlea.encode`; may be called from another thread.

    Raises:
        InputError: The size is unknown.
        MissingLibraryError: espeakng-loader is not installed.
        SnnsimFileError: The folder cannot be written.
    """
    folder = Path(folder)
    repetitions = _repetitions(size)
    if time_step is not None and not 1e-5 <= time_step <= 0.1:
        raise InputError(f"time_step: expected 0.00001 to 0.1 seconds, got {time_step}")
    clip_seed("", seed)  # refuses a seed out of range
    settings = Encoder(max_seconds=MAX_SECONDS) if encoder is None else encoder
    order = [(r, i) for r in range(max(repetitions)) for i, voice in enumerate(VOICES) if r < repetitions[voice.test]]
    parts: dict[tuple[int, int], _Part] = {}
    reused = 0
    with SpeechProcess() as speech, ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        recipe = {
            "generator": GENERATOR_VERSION,
            "synthesiser": f"espeak-ng {speech.version}",
            "seed": seed,
            "encoder": settings.description(),
            "voices": [asdict(voice) for voice in VOICES],
            "classes": list(CLASS_NAMES),
        }
        if (finished := _finished(folder, recipe, order, time_step, pack)) is not None:
            return finished
        store = folder / ".parts" / sha256_bytes(canonical_json(recipe).encode())[:16]
        for repetition, voice in order:
            path = store / f"{_part_name(repetition, voice)}.npz"
            part = _Part.load(path)
            if part is None:
                part = _make_part(speech, pool, voice, repetition, seed, settings, notice)
                part.save(path)
            else:
                reused += len(WORDS)
            parts[repetition, voice] = part
            if progress is not None:
                progress(len(parts) * len(WORDS), len(order) * len(WORDS))
    paths, counts, spikes = _write(folder, parts, recipe, settings, time_step, pack)
    hashes = {_part_name(*key): [part.speech, part.digest()] for key, part in parts.items()}
    made = MadeSet(
        train=paths["train"],
        test=paths["test"],
        n_train=counts["train"],
        n_test=counts["test"],
        spikes=spikes,
        reused=reused,
        unchanged=False,
        speech=sha256_bytes("".join(part.speech for part in parts.values()).encode()),
        digest=sha256_bytes("".join(part.digest() for part in parts.values()).encode()),
        **_compare(hashes, recipe),
    )
    files = {path.name: sha256_file(path) for path in paths.values()}
    manifest = recipe | {"clips": counts, "time_step": time_step, "speech": made.speech, "spikes": made.digest}
    write_json(folder / "manifest.json", manifest | {"files": files, "parts": hashes})
    shutil.rmtree(folder / ".parts", ignore_errors=True)
    return made


def _finished(
    folder: Path, recipe: dict[str, Any], order: list[tuple[int, int]], time_step: float | None, pack: bool
) -> MadeSet | None:
    """Return the set that ``folder`` holds if it is the one asked for and every file has its stated SHA-256."""
    paths = _paths(folder, pack)
    tested = sum(VOICES[voice].test for _, voice in order)
    counts = {"train": (len(order) - tested) * len(WORDS), "test": tested * len(WORDS)}
    wanted = json.loads(json.dumps(recipe | {"clips": counts, "time_step": time_step}))
    try:
        held = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if any(held[key] != value for key, value in wanted.items()):
            return None
        if held["files"] != {path.name: sha256_file(path) for path in paths.values()}:
            return None
        return MadeSet(
            train=paths["train"],
            test=paths["test"],
            n_train=counts["train"],
            n_test=counts["test"],
            spikes=sum(read_heidelberg(path).times.size for path in paths.values()),
            reused=sum(counts.values()),
            unchanged=True,
            speech=held["speech"],
            digest=held["spikes"],
            **_compare(held["parts"], recipe),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no manifest, or not one of ours
        return None


def _paths(folder: Path, pack: bool) -> dict[str, Path]:
    return {split: folder / f"spoken_digits_{split}.h5{'.gz' if pack else ''}" for split in ("train", "test")}


def _part_name(repetition: int, voice: int) -> str:
    return f"{repetition:05d}-{voice:03d}"


def _compare(made: dict[str, list[str]], recipe: dict[str, Any]) -> dict[str, int]:
    """Compare the hashes of parts with those of the built-in set, where it was made with the same settings."""
    try:
        built = json.loads((BUILTIN / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        built = {}
    found = {"known": 0, "other_speech": 0, "other_spikes": 0}
    if any(built.get(key) != value for key, value in json.loads(json.dumps(recipe)).items()):
        return found
    for name, (speech, spikes) in made.items():
        if (hashes := built["parts"].get(name)) is not None:
            found["known"] += len(WORDS)
            found["other_speech"] += len(WORDS) * (hashes[0] != speech)
            found["other_spikes"] += len(WORDS) * (hashes[1] != spikes)
    return found


def _repetitions(size: int | str) -> tuple[int, int]:
    if isinstance(size, str) and size in SIZES:
        return SIZES[size]
    try:
        number = int(size) if isinstance(size, int | str) and not isinstance(size, bool) else 0
    except ValueError:
        number = 0
    if not 1 <= number <= 10_000:
        raise InputError(f"size: expected one of {', '.join(SIZES)} or a number of repetitions from 1, got {size!r}")
    return number, number


def _write(
    folder: Path,
    parts: dict[tuple[int, int], _Part],
    recipe: dict[str, Any],
    encoder: Encoder,
    time_step: float | None,
    pack: bool,
) -> tuple[dict[str, Path], dict[str, int], int]:
    """Write both files; return their paths, their numbers of clips, and the number of spikes."""
    counts: dict[str, int] = {}
    spikes = 0
    paths = _paths(folder, pack)
    for split, path in paths.items():
        mine = {key: part for key, part in parts.items() if VOICES[key[1]].test == (split == "test")}
        columns = [(label, voice, repetition) for repetition, voice in mine for label in range(len(WORDS))]
        labels, speakers, recordings = np.array(columns, dtype=np.int64).T
        spikes += write_spike_file(
            path,
            _clips(mine.values(), time_step),
            labels,
            n_units=encoder.channels,
            keys=CLASS_NAMES,
            speakers=speakers,
            recordings=recordings,
            meta_info={
                "speaker_name": [voice.name for voice in VOICES],
                "gender": [voice.gender for voice in VOICES],
                "accent": [voice.english for voice in VOICES],
            },
            attributes={
                "encoder": encoder.description(),
                "generator_version": GENERATOR_VERSION,
                "synthesiser": recipe["synthesiser"],
                "seed": recipe["seed"],
                "seed_rule": "CRC-32 of <word>_<voice>_<repetition>, the set's seed in the upper 32 bits",
                "time_step": time_step or 0.0,
                "note": "Synthetic speech made for snnsim; not a recording of people and not the Heidelberg digits.",
            },
        )
        counts[split] = len(columns)
    return paths, counts, spikes


def _clips(
    parts: Iterable[_Part], time_step: float | None
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.uint16]]]:
    for part in parts:
        seconds = part.samples / STAGE_RATE
        if time_step is not None:
            seconds = np.rint(seconds / time_step) * time_step
        ends = np.cumsum(part.counts)[:-1]
        yield from zip(np.split(seconds, ends), np.split(part.units, ends), strict=True)
