"""From sound to spikes the way an inner ear does it: the encoder behind the Spiking Heidelberg Digits, from equations.

Sound, level and ramps -> basilar membrane (linear, 700 places) -> inner hair cell (one transmitter-pool model a
place) -> 40 auditory fibres a place -> one bushy cell (leaky integrate-and-fire) a place -> (time, unit). Only the
fibres are random, and their numbers depend on seed, unit and sample alone: the same clip and seed give the same
spikes for any number of threads, any block size and any order of files. Unit 0 is the highest frequency.

>>> tone = np.sin(2 * np.pi * 440 * np.arange(1600) / 16000)
>>> times, units = encode(tone, 16000, seed=1, channels=20, membrane="gammatone")
>>> times.dtype.name, units.dtype.name, bool((np.diff(times) >= 0).all())
('float64', 'int32', True)

Source: Cramer, Stradmann, Schemmel and Zenke, "The Heidelberg spiking data sets for the systematic evaluation of
spiking neural networks", IEEE TNNLS 33, 2744 (2022). The equations are in ``docs/cochlea.md``.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from snnsim.datasets.audio import check_waveform, read_audio, resample
from snnsim.datasets.cochlea_membrane import (
    AUDIO_RATE,
    MODELS,
    MembraneModel,
    Notice,
    Orientation,
    grid,
    membrane_hash,
    places,
    stored_transfer,
)
from snnsim.errors import InputError, SnnsimFileError
from snnsim.kernels import cochlea as kernel

__all__ = ["ENCODER_VERSION", "Encoder", "clip_seed", "encode", "encode_files", "prepare", "transform_length"]

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

ENCODER_VERSION = 1
"""Written into every file; raised whenever the same sound and seed would give other spikes."""

STAGE_RATE = AUDIO_RATE // 2
TAIL = 720
"""Samples at 24 kHz that the response may outlast the sound: 30 ms."""

LENGTHS = (9_000, 12_000, 15_000, 24_000, 48_000, 96_000, 192_000)
"""Lengths of the transform: few, so that few transfer functions have to be stored."""

SHORTEST = 0.01  # seconds of sound
BLOCK = 24  # places transformed together


@dataclass(frozen=True)
class Encoder:
    """How sound becomes spikes. All files of a data set must be made with equal settings.

    Attributes:
        channels: Places along the membrane, evenly spaced.
        membrane: ``"hydrodynamic"``, as in the Heidelberg data, or ``"gammatone"``, closed form, other spikes.
        orientation: ``"published"``: low places answer before the sound, as in the Heidelberg data;
            ``"causal"``: they lag.
        ramp: Seconds of Hann ramp at both ends, or ``"clip"`` for one Hann window over the whole clip
            (what the published tool does by default).
        level: Root mean square that every clip is set to; None leaves the level alone.
        max_seconds: Sound after this is cut off before anything else; None keeps all.

    Raises:
        InputError: A setting is out of range.
    """

    channels: int = 700
    membrane: MembraneModel = "hydrodynamic"
    orientation: Orientation = "published"
    ramp: float | Literal["clip"] = 0.03
    level: float | None = 0.3
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        places(self.channels)
        _choice("membrane", self.membrane, tuple(MODELS))
        _choice("orientation", self.orientation, ("published", "causal"))
        if self.ramp != "clip" and not (_is_number(self.ramp) and 0 <= self.ramp <= 10):
            raise InputError(f"ramp: expected 0 to 10 seconds or 'clip', got {self.ramp!r}")
        if self.level is not None and not (_is_number(self.level) and 0 < self.level <= 1e6):
            raise InputError(f"level: expected a root mean square above 0, or None, got {self.level!r}")
        longest = (LENGTHS[-1] - TAIL) / STAGE_RATE
        if self.max_seconds is not None and not (_is_number(self.max_seconds) and self.max_seconds >= SHORTEST):
            raise InputError(f"max_seconds: expected {SHORTEST} to {longest} seconds, got {self.max_seconds!r}")

    def description(self) -> dict[str, Any]:
        """Return everything that decides the spikes except sound and seed, as JSON values; part of every file."""
        return asdict(self) | {
            "encoder_version": ENCODER_VERSION,
            "membrane_hash": membrane_hash(self.membrane),
            "audio_rate": AUDIO_RATE,
            "tail_seconds": TAIL / STAGE_RATE,
            "hair_cell": asdict(kernel.HAIR),
            "bushy_cell": asdict(kernel.BUSHY),
            "fibres": kernel.N_FIBRES,
            "dead_samples": kernel.DEAD_SAMPLES,
        }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def clip_seed(name: str, seed: int = 0) -> int:
    """Return the seed of a clip: the CRC-32 of its name, with the seed of the data set in the upper 32 bits.

    >>> clip_seed("0_george_10") == zlib.crc32(b"0_george_10")
    True
    """
    if not 0 <= seed < 1 << 32:
        raise InputError(f"seed: expected a whole number from 0 to 4294967295, got {seed}")
    return (seed << 32) | zlib.crc32(name.encode("utf-8"))


def transform_length(n_audio: int) -> int:
    """Return the number of bins and of 24 kHz samples used for a clip of ``n_audio`` samples at 48 kHz.

    Raises:
        InputError: The clip is longer than 7.97 s.
    """
    needed = n_audio // 2 + TAIL
    for length in LENGTHS:
        if length >= needed:
            return length
    longest = (LENGTHS[-1] - TAIL) / STAGE_RATE
    raise InputError(
        f"the sound lasts {n_audio / AUDIO_RATE:.2f} s, more than {longest:.2f} s: cut it or set max_seconds"
    )


def prepare(waveform: npt.ArrayLike, rate: int, encoder: Encoder) -> Float64:
    """Bring sound to the entrance of the ear: zero mean, 48 kHz, even length, level, ramps.

    Args:
        waveform: Samples, shape (n_samples,); finite.
        rate: Sampling rate, Hz.
        encoder: Settings.

    Returns:
        float64, shape (n_audio,), n_audio even, at 48 kHz.

    Raises:
        InputError: The sound is silent, shorter than 10 ms, not finite or not one-dimensional.
    """
    sound = check_waveform(waveform, rate)
    offset = float(np.abs(sound).max())
    sound = sound - sound.mean()
    if encoder.max_seconds is not None:
        sound = sound[: round(encoder.max_seconds * rate)]
    if sound.size < SHORTEST * rate:
        raise InputError(f"the sound lasts {1e3 * sound.size / rate:.1f} ms; expected at least {1e3 * SHORTEST:g} ms")
    transform_length(int(sound.size * AUDIO_RATE / rate))  # refuses what is too long before it is made longer still
    if encoder.level is not None and float(np.abs(sound).max()) <= 1e-12 * offset:  # rounding of the mean
        raise InputError("the sound is silent, so its level cannot be set; drop the recording")
    sound = resample(sound, int(rate), AUDIO_RATE)
    sound = sound[: sound.size // 2 * 2]
    if encoder.level is not None:
        sound = sound / np.abs(sound).max()  # first to 1, so that no square under- or overflows
        sound = sound * (encoder.level / np.sqrt(np.mean(sound * sound)))
    half = sound.size // 2
    n_ramp = half if encoder.ramp == "clip" else min(round(encoder.ramp * AUDIO_RATE), half)
    if n_ramp > 0:
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_ramp) / (2 * n_ramp - 1))
        sound = sound.copy()
        sound[:n_ramp] *= window
        sound[-n_ramp:] *= window[::-1]
    return sound


class _Membrane:
    """The membrane's answer to one prepared clip, block of places by block of places."""

    def __init__(
        self, sound: Float64, encoder: Encoder, threads: int | None = None, notice: Notice | None = None
    ) -> None:
        from scipy import fft

        self.encoder = encoder
        self.n_bins = transform_length(sound.size)
        self.n_samples = sound.size // 2 + TAIL
        spectrum = fft.rfft(sound, n=2 * (self.n_bins - 1))
        # conj(V) X = conj(V conj(X)), and turning time around is conjugation: only the spectrum has to change.
        self.spectrum = (np.conj(spectrum) if encoder.orientation == "causal" else spectrum).astype(np.complex64)
        self.stored = None
        if self._is_stored():
            self.stored = stored_transfer(self.n_bins, encoder.channels, threads=threads, notice=notice)

    def _is_stored(self) -> bool:
        return self.encoder.membrane == "hydrodynamic"

    def velocity(self, first: int, last: int) -> Float32:
        """Return the velocity of places ``first`` to ``last`` (excluded), float32, shape (place, n_bins), at 24 kHz.

        The published one-sided inverse transform, Re IFFT(Y), equals the real inverse transform of
        (Y[k] + conj(Y[n - k])) / 2, which costs half.
        """
        from scipy import fft

        if self.stored is not None:
            transfer = self.stored[first:last]
        else:
            x = places(self.encoder.channels)[first:last, None]
            transfer = MODELS[self.encoder.membrane](grid(self.n_bins), x).astype(np.complex64)
        product = transfer * self.spectrum
        if self.encoder.orientation == "causal":
            product = np.conj(product)
        n, half = self.n_bins, self.n_bins // 2
        folded = product[:, : half + 1].copy()
        folded[:, 1:] += np.conj(product[:, n - 1 : n - half - 1 : -1])
        folded[:, 0] *= 2
        folded *= np.float32(0.5)
        rows = [fft.irfft(row, n=n) for row in folded]  # one by one: a row's bits do not depend on its neighbours
        return np.stack(rows)


def membrane_velocity(sound: Float64, encoder: Encoder) -> Float32:
    """Return the velocity of every place for a prepared clip.

    Args:
        sound: Output of :func:`prepare`, float64, shape (n_audio,).
        encoder: Settings.

    Returns:
        float32, shape (channels, n_audio / 2 + 720), at 24 kHz.
    """
    membrane = _Membrane(sound, encoder)
    blocks = [
        membrane.velocity(first, min(first + BLOCK, encoder.channels)) for first in range(0, encoder.channels, BLOCK)
    ]
    return np.concatenate(blocks)[:, : membrane.n_samples]


def encode(
    waveform: npt.ArrayLike,
    rate: int,
    *,
    seed: int,
    channels: int = 700,
    membrane: MembraneModel = "hydrodynamic",
    orientation: Orientation = "published",
    ramp: float | Literal["clip"] = 0.03,
    level: float | None = 0.3,
    max_seconds: float | None = None,
    threads: int = 1,
    block: int = BLOCK,
    notice: Notice | None = None,
) -> tuple[Float64, Int32]:
    """Turn one sound into spikes.

    Args:
        waveform: Samples, shape (n_samples,), finite, not silent.
        rate: Sampling rate, Hz; the sound is resampled to 48 kHz.
        seed: Seed of the auditory fibres, 0 to 2^64 - 1; see :func:`clip_seed`.
        channels: See :class:`Encoder`, as all below up to ``max_seconds``.
        membrane: Model of the membrane.
        orientation: Direction of the delay along the membrane.
        ramp: Seconds of ramp at both ends, or ``"clip"``.
        level: Root mean square that the clip is set to.
        max_seconds: Where the sound is cut.
        threads: Threads; does not change the result.
        block: Places computed together; does not change the result.
        notice: Told when the response of the membrane to clips of this length has to be computed first, which takes
            many seconds the first time.

    Returns:
        Times in seconds, float64, ascending, multiples of 1/24000; units, int32, ascending where times are equal.

    Raises:
        InputError: A setting or the sound is not acceptable.
    """
    settings = Encoder(channels, membrane, orientation, ramp, level, max_seconds)
    return encode_prepared(prepare(waveform, rate, settings), settings, seed, threads, block, notice)


def encode_prepared(
    sound: Float64,
    encoder: Encoder,
    seed: int,
    threads: int = 1,
    block: int = BLOCK,
    notice: Notice | None = None,
) -> tuple[Float64, Int32]:
    if not 0 <= seed < 1 << 64:
        raise InputError(f"seed: expected a whole number from 0 to 2^64 - 1, got {seed}")
    if block < 1 or threads < 1:
        raise InputError(f"block and threads: expected at least 1, got {block} and {threads}")
    answer = _Membrane(sound, encoder, threads, notice)
    hair, rest, bushy = kernel.HAIR.vector(), kernel.HAIR_REST, kernel.BUSHY.vector()

    def run(first: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        last = min(first + block, encoder.channels)
        units = np.arange(first, last, dtype=np.int64)
        velocity = answer.velocity(first, last)
        samples, numbers = kernel.cochlea(velocity, answer.n_samples, np.uint64(seed), units, hair, rest, bushy)
        return samples, np.repeat(units, numbers)

    firsts = range(0, encoder.channels, block)
    if threads == 1:
        parts = [run(first) for first in firsts]
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(run, firsts))
    samples = np.concatenate([part[0] for part in parts])
    units = np.concatenate([part[1] for part in parts])
    order = np.lexsort((units, samples))
    return samples[order] / float(STAGE_RATE), units[order].astype(np.int32)


def encode_files(
    paths: Sequence[str | Path],
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    encoder: Encoder | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Notice | None = None,
) -> Iterator[tuple[Float64, Int32]]:
    """Encode sound files in parallel; results come in the order of ``paths``.

    Args:
        paths: Sound files, see :func:`snnsim.datasets.audio.read_audio`.
        names: Name of each clip, which seeds it (:func:`clip_seed`); default the file's name without folder and
            extension.
        seed: Seed of the data set; another one gives other noise in every clip.
        encoder: Settings; default :class:`Encoder` as it is.
        threads: Files encoded at the same time; default one per processor. Does not change the result.
        progress: Called with (clips done, clips in all) after each clip.
        notice: See :func:`encode`; may be called from another thread.

    Yields:
        (times, units) of each file, as :func:`encode` returns them.

    Raises:
        SnnsimFileError: A file cannot be read or encoded.
    """
    settings = Encoder() if encoder is None else encoder
    files = [Path(path) for path in paths]
    titles = [path.stem for path in files] if names is None else list(names)
    if len(titles) != len(files):
        raise InputError(f"names: expected one a file ({len(files)}), got {len(titles)}")
    workers = threads or os.cpu_count() or 1

    def work(path: Path, title: str) -> tuple[Float64, Int32]:
        waveform, rate = read_audio(path)
        try:
            sound = prepare(waveform, rate, settings)
            return encode_prepared(sound, settings, clip_seed(title, seed), notice=notice)
        except SnnsimFileError:
            raise
        except InputError as error:
            raise SnnsimFileError(path, "", str(error)) from error

    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[tuple[Float64, Int32]]] = []
        try:
            done = 0
            for path, title in zip(files, titles, strict=True):
                waiting.append(pool.submit(work, path, title))
                if len(waiting) > 4 * workers:  # results are held only a little ahead of the reader
                    yield waiting.pop(0).result()
                    done += 1
                    if progress is not None:
                        progress(done, len(files))
            while waiting:
                yield waiting.pop(0).result()
                done += 1
                if progress is not None:
                    progress(done, len(files))
        finally:
            for future in waiting:
                future.cancel()
