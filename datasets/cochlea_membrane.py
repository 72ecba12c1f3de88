"""Transfer functions from sound to basilar membrane velocity, and their cache on disk.

Two models at the same places of the cochlea, 0 (base, high) to 3.5 cm (apex, low):

* ``hydrodynamic``: the shallow-water model of Sieroka, Dosch and Rupp, J. Acoust. Soc. Am. 120, 297 (2006), with
  the constants of the encoder behind the Spiking Heidelberg Digits. It needs Hankel functions of complex argument
  (many seconds for a whole transfer function), so the values are computed once and kept in the user's cache folder.
* ``gammatone``: a closed form of order 4 fitted to the first (centre frequency within 1 %, gain within 14 %,
  bandwidth within 9 %, delay within 5 %). It lacks the low-frequency skirt and gives other spikes: never mix files
  made with the two.

With the Fourier kernel exp(-i w t) the hydrodynamic transfer function as published answers *before* the sound: low
places lead. ``orientation="published"`` keeps that; ``"causal"`` conjugates, so that low places lag.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from snnsim.datasets.cache import cache_folder
from snnsim.errors import InputError, SnnsimFileError
from snnsim.files import atomic_path, canonical_json

__all__ = [
    "AUDIO_RATE",
    "LENGTH",
    "MEMBRANE",
    "MembraneConstants",
    "MembraneModel",
    "Notice",
    "Orientation",
    "gammatone_transfer",
    "hydrodynamic_transfer",
    "membrane_hash",
    "phase_integral",
    "places",
    "resonance",
    "stored_transfer",
    "wave_number",
]

Float64 = npt.NDArray[np.float64]
Complex128 = npt.NDArray[np.complex128]
Complex64 = npt.NDArray[np.complex64]
MembraneModel = Literal["hydrodynamic", "gammatone"]
Orientation = Literal["published", "causal"]
Notice = Callable[[str], None]
"""Told one sentence before something that takes many seconds and happens once."""

AUDIO_RATE = 48_000
"""Sampling rate at the entrance of the ear, Hz; the stages after the membrane run at half of it."""

LENGTH = 3.5
"""Length of the membrane, cm."""

GAMMATONE_ORDER = 4
_building = threading.Lock()
VERSION = 1  # of the stored transfer functions: raise it when a formula changes


@dataclass(frozen=True)
class MembraneConstants:
    """Constants of the hydrodynamic model, CGS units.

    Attributes:
        c0: Stiffness at the base, g cm^-2 s^-2.
        a: Stiffness taken off everywhere, g cm^-2 s^-2.
        alpha: Decay of the stiffness along the membrane, 1/cm.
        rho: Density of the fluid, g cm^-3.
        h: Height of the channel, cm.
        m: Mass of the membrane, g cm^-2.
        delta: Damping, without dimension.
    """

    c0: float = 1e9
    a: float = 3500.0
    alpha: float = 3.0
    rho: float = 1.0
    h: float = 0.1
    m: float = 0.05
    delta: float = 0.15

    @property
    def r0(self) -> float:
        """Resistance at the base, g cm^-2 s^-1."""
        return self.delta * math.sqrt(self.c0 * self.m)


MEMBRANE = MembraneConstants()


def places(channels: int) -> Float64:
    """Return the places of ``channels`` units in cm, evenly spaced; unit 0 is the base (highest frequency).

    >>> places(3).tolist()
    [0.0, 1.75, 3.5]
    """
    if not isinstance(channels, int | np.integer) or isinstance(channels, bool) or not 2 <= channels <= 1 << 16:
        raise InputError(f"channels: expected a whole number from 2 to 65536, got {channels!r}")
    return LENGTH * np.arange(channels, dtype=np.float64) / (channels - 1)


def resonance(place: npt.ArrayLike, constants: MembraneConstants = MEMBRANE) -> Float64:
    """Return the characteristic frequency in Hz of a place in cm: sqrt(S(x) / m) / (2 pi).

    >>> [round(float(value), 1) for value in resonance([0.0, 1.75, 3.5])]
    [22507.9, 1629.9, 110.3]
    """
    x = np.asarray(place, dtype=np.float64)
    return np.asarray(np.sqrt((constants.c0 * np.exp(-constants.alpha * x) - constants.a) / constants.m) / (2 * np.pi))


def _impedance(omega: Float64, x: Float64, k: MembraneConstants) -> Complex128:
    """Local impedance times i omega: xi = S(x) - m omega^2 - i omega R(x)."""
    stiffness = k.c0 * np.exp(-k.alpha * x) - k.a
    return np.asarray(stiffness - k.m * omega**2 - 1j * omega * k.r0 * np.exp(-k.alpha * x / 2))


def wave_number(frequency: npt.ArrayLike, place: npt.ArrayLike, constants: MembraneConstants = MEMBRANE) -> Complex128:
    """Return the complex wave number g in 1/cm at ``frequency`` (Hz) and ``place`` (cm), broadcast together."""
    omega = 2 * np.pi * np.asarray(frequency, dtype=np.float64)
    xi = _impedance(omega, np.asarray(place, dtype=np.float64), constants)
    return np.asarray(omega * np.sqrt(constants.rho / (constants.h * xi)))


def phase_integral(
    frequency: npt.ArrayLike, place: npt.ArrayLike, constants: MembraneConstants = MEMBRANE
) -> Complex128:
    """Return G, the integral of the wave number from its Langer origin: dG/dx = g (closed form)."""
    k = constants
    omega = 2 * np.pi * np.asarray(frequency, dtype=np.float64)
    x = np.asarray(place, dtype=np.float64)
    d = np.sqrt(k.a + k.m * omega**2)

    def b(y: Float64) -> Complex128:
        root = np.sqrt(_impedance(omega, y, k))
        return np.asarray(root - 1j * d + omega * k.r0 * np.exp(-k.alpha * y / 2) / (2 * d))

    base = np.zeros_like(x)
    logarithm = np.log(np.exp(-k.alpha * x / 2) * b(base) / b(x))
    scale = math.sqrt(k.rho / k.h)
    return np.asarray(2 * wave_number(frequency, base, k) / k.alpha - 2j * omega * scale / (k.alpha * d) * logarithm)


def hydrodynamic_transfer(
    frequency: npt.ArrayLike, place: npt.ArrayLike, constants: MembraneConstants = MEMBRANE
) -> Complex128:
    """Return membrane velocity per unit of sound, in the published orientation.

    ``V = (2 omega / xi) P(x) / P(0) Z`` with the pressure ``P = sqrt(G / g) H0(1)(G)`` in Langer's form of the WKB
    solution and the entrance ``Z = i sqrt(2 c0 / h) H0(2)(u) / H1(2)(u)``.

    Args:
        frequency: Hz, > 0; broadcast with ``place``.
        place: cm from the base, 0 to 3.5.
        constants: Constants of the model.

    Returns:
        Complex transfer function, complex128.
    """
    from scipy.special import hankel1e, hankel2e

    k = constants
    f = np.asarray(frequency, dtype=np.float64)
    x = np.asarray(place, dtype=np.float64)
    omega = 2 * np.pi * f
    base = np.zeros_like(x)
    here, entry = phase_integral(f, x, k), phase_integral(f, base, k)
    # The scaled Hankel functions leave exp(i G) out, which under- and overflows by itself but not as a ratio.
    ratio = hankel1e(0, here) / hankel1e(0, entry) * np.exp(1j * (here - entry))
    pressure = np.sqrt(here / wave_number(f, x, k)) / np.sqrt(entry / wave_number(f, base, k)) * ratio
    u = (2 * omega / k.alpha) * math.sqrt(2 * k.rho / (k.h * k.c0))
    entrance = 1j * math.sqrt(2 * k.c0 / k.h) * hankel2e(0, u) / hankel2e(1, u)
    return np.asarray(2 * omega / _impedance(omega, x, k) * pressure * entrance)


def gammatone_transfer(frequency: npt.ArrayLike, place: npt.ArrayLike) -> Complex128:
    """Return the closed-form stand-in for the hydrodynamic model, in the published orientation.

    ``H = A (1 + i (f - f_p) / b)^-4`` with the delay of the hydrodynamic model, conjugated; the centre f_p, gain A,
    bandwidth and delay are polynomials in the logarithm of the place's characteristic frequency.

    Args:
        frequency: Hz; broadcast with ``place``.
        place: cm from the base.
    """
    n = GAMMATONE_ORDER
    f = np.asarray(frequency, dtype=np.float64)
    f_res = resonance(place)
    log = np.log(f_res / 1000.0)
    peak = f_res * (0.89704 - 0.00247 * log + 0.00124 * log**2)
    gain = np.exp(5.13542 - 0.23076 * log - 0.04872 * log**2)
    erb = peak * (0.35384 + 0.01231 * log - 0.00257 * log**2)
    delay = (3.07497 - 0.12124 * log - 0.05574 * log**2) / peak
    kappa = math.pi * math.factorial(2 * n - 2) * 2.0 ** -(2 * n - 2) / math.factorial(n - 1) ** 2
    b = erb / kappa
    causal = gain * (1 + 1j * (f - peak) / b) ** -n * np.exp(-2j * np.pi * f * (delay - n / (2 * np.pi * b)))
    return np.asarray(np.conj(causal))


MODELS: dict[str, Callable[[Float64, Float64], Complex128]] = {
    "hydrodynamic": hydrodynamic_transfer,
    "gammatone": gammatone_transfer,
}


def membrane_hash(model: MembraneModel) -> str:
    """Return 16 hexadecimal digits that change whenever the model's formulas or constants change."""
    constants = asdict(MEMBRANE) | {"model": model, "length": LENGTH, "rate": AUDIO_RATE, "version": VERSION}
    return hashlib.sha256(canonical_json(constants).encode()).hexdigest()[:16]


def grid(n_bins: int) -> Float64:
    """Return the frequencies in Hz at which a transfer function of ``n_bins`` bins is evaluated: 1 to 24 000.

    They miss the exact bin frequencies by at most 1 Hz, as in the published encoder; f = 0 has no value.
    """
    return np.linspace(1.0, AUDIO_RATE / 2, n_bins)


def stored_transfer(
    n_bins: int,
    channels: int,
    model: MembraneModel = "hydrodynamic",
    threads: int | None = None,
    notice: Notice | None = None,
) -> Complex64:
    """Return the transfer function of all places from the cache, computing and storing it if it is not there.

    Args:
        n_bins: Frequencies, see :func:`grid`.
        channels: Places, see :func:`places`.
        model: Model of the membrane.
        threads: Threads for computing; default one per processor.
        notice: Told when the function has to be computed, before that begins.

    Returns:
        complex64, shape (channels, n_bins), mapped into memory, read-only, in the published orientation.

    Raises:
        SnnsimFileError: The cache folder cannot be written.
    """
    name = f"membrane-{model}-{membrane_hash(model)}-{channels}-{n_bins}.npy"
    path = cache_folder() / "cochlea" / name
    with _building:  # clips encoded side by side want the same one: let the first compute it
        stored = _open(path, channels, n_bins, model)
        if stored is None:
            if notice is not None:
                notice(
                    f"computing the inner ear's response to clips of this length ({channels} places, {n_bins} "
                    f"frequencies): some seconds, once; it is kept in {path.parent}"
                )
            _build(path, channels, n_bins, model, threads or os.cpu_count() or 1)
            stored = _open(path, channels, n_bins, model)
    if stored is None:
        raise SnnsimFileError(path, "", "was written but does not read back; is the disk full or damaged?")
    return stored


def _open(path: Path, channels: int, n_bins: int, model: MembraneModel) -> Complex64 | None:
    """Map a stored transfer function; None if it is missing, cut short or does not hold what its name says."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if values.shape != (channels, n_bins) or values.dtype != np.complex64:
        return None
    rows = np.unique(np.linspace(0, channels - 1, 5).astype(np.int64))
    columns = np.unique(np.linspace(0, n_bins - 1, 7).astype(np.int64))
    with np.errstate(under="ignore"):
        expected = MODELS[model](grid(n_bins)[columns], places(channels)[rows, None])
    if not np.allclose(values[np.ix_(rows, columns)], expected, rtol=1e-4, atol=1e-6):
        return None
    stored: Complex64 = values
    return stored


def _build(path: Path, channels: int, n_bins: int, model: MembraneModel, threads: int) -> None:
    frequency, place = grid(n_bins), places(channels)
    with atomic_path(path) as temporary:
        values = open_memmap(temporary, mode="w+", dtype=np.complex64, shape=(channels, n_bins))

        def fill(first: int) -> None:
            with np.errstate(under="ignore"):
                block = MODELS[model](frequency, place[first : first + 10, None])
                values[first : first + 10] = block.astype(np.complex64)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(fill, range(0, channels, 10)):
                pass
        values.flush()
