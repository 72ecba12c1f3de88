"""Sound files and sampling rates: mono float64 in, mono float64 out."""

from __future__ import annotations

import struct
import warnings
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, MissingLibraryError, SnnsimFileError

__all__ = ["check_waveform", "read_audio", "resample"]

Float64 = npt.NDArray[np.float64]

LARGEST = 1e100  # sums and squares of larger samples overflow
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000


def read_audio(path: str | Path) -> tuple[Float64, int]:
    """Read a sound file as one channel.

    WAV files (whole numbers of 8 to 32 bits, floating point) need no further library; FLAC, OGG and the like need
    soundfile. Several channels are averaged.

    Args:
        path: The file.

    Returns:
        Samples, float64, shape (n_samples,), full scale 1; and the sampling rate in Hz.

    Raises:
        SnnsimFileError: The file is missing, damaged, empty, or holds values that are not finite.
        MissingLibraryError: The format needs soundfile.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            head = stream.read(12)
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be read ({error.strerror}); is the path right?") from error
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        rate, samples = _read_wav(path)
    else:
        rate, samples = _read_other(path)
    waveform = _to_mono(path, samples)
    try:
        check_waveform(waveform, rate)
    except InputError as error:
        raise SnnsimFileError(path, "", str(error)) from error
    return waveform, rate


def _read_wav(path: Path) -> tuple[int, npt.NDArray[Any]]:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # unknown chunks are none of our business
            rate, samples = wavfile.read(path)
    except (ValueError, EOFError, struct.error, MemoryError, OverflowError, TypeError, ZeroDivisionError) as error:
        reason = f"is a damaged or unusual WAV file ({str(error) or type(error).__name__}); convert it to 16-bit PCM"
        raise SnnsimFileError(path, "", reason) from error
    except UnboundLocalError as error:  # how scipy says that a file ends before its sound
        raise SnnsimFileError(path, "", "is a WAV file without sound in it; get it again") from error
    return int(rate), np.asarray(samples)


def _read_other(path: Path) -> tuple[int, npt.NDArray[Any]]:
    try:
        import soundfile
    except ImportError as error:
        raise MissingLibraryError("soundfile", "audio", f"{path} is not a WAV file; reading it") from error
    try:
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        reason = "is no sound file that can be read; expected WAV, FLAC or OGG"
        raise SnnsimFileError(path, "", reason) from error
    return int(rate), np.asarray(samples)


def _to_mono(path: Path, samples: npt.NDArray[Any]) -> Float64:
    kind = samples.dtype
    if kind == np.uint8:
        waveform = (samples.astype(np.float64) - 128.0) / 128.0
    elif kind.kind == "i":
        waveform = samples.astype(np.float64) / float(2 ** (8 * kind.itemsize - 1))
    elif kind.kind == "f":
        waveform = samples.astype(np.float64)
    else:
        raise SnnsimFileError(path, "", f"holds samples of type {kind}; expected whole numbers or floating point")
    return waveform if waveform.ndim == 1 else np.asarray(waveform.mean(axis=1))


def check_waveform(waveform: npt.ArrayLike, rate: float) -> Float64:
    """Return ``waveform`` as float64, checked.

    Raises:
        InputError: It is not one-dimensional, empty or not finite, or the rate is not a whole number of Hz
            from 1 000 to 768 000.
    """
    if isinstance(rate, bool) or rate != rate or int(rate) != rate or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InputError(f"sampling rate: expected whole Hz from {LOWEST_RATE} to {HIGHEST_RATE}, got {rate!r}")
    try:
        samples = np.asarray(waveform, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("waveform: expected numbers, one a sample") from error
    if samples.ndim != 1:
        raise InputError(f"waveform: expected one dimension, got shape {samples.shape}; average the channels first")
    if samples.size == 0:
        raise InputError("waveform: expected sound, got no samples")
    if not np.isfinite(samples).all():
        where = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise InputError(f"waveform: sample {where} is not finite; repair or drop the recording")
    if np.abs(samples).max() > LARGEST:
        raise InputError(f"waveform: expected samples near full scale 1, got {np.abs(samples).max():.3g}")
    return samples


def resample(waveform: Float64, rate: int, target: int) -> Float64:
    """Change the sampling rate with a polyphase filter (Kaiser window); the length scales with the rate.

    Args:
        waveform: Samples, float64, shape (n_samples,).
        rate: Sampling rate of ``waveform``, Hz.
        target: Sampling rate wanted, Hz.

    >>> resample(np.ones(80), 8000, 48000).size
    480
    """
    if rate == target:
        return waveform
    from scipy.signal import resample_poly

    common = gcd(int(rate), int(target))
    return np.asarray(resample_poly(waveform, int(target) // common, int(rate) // common), dtype=np.float64)
