"""The basilar membrane: transfer functions, their cache, and the direction of time."""

from pathlib import Path

import numpy as np
import pytest

from snnsim.datasets import cochlea_membrane as membrane
from snnsim.datasets.cochlea import Encoder, membrane_velocity, prepare
from snnsim.errors import InputError

RATE = 48_000

# unit of 700, frequency in Hz, velocity per unit of sound; from an independent evaluation of the published expression
TRANSFER = [
    (100, 10_000, 16.8636 + 68.6902j),
    (250, 3_000, -113.1106 + 15.9393j),
    (350, 1_500, 45.3243 - 142.3944j),
    (400, 1_000, 7.63669 - 170.1887j),
    (400, 200, -14.0361 + 3.95576j),
    (500, 500, 166.5657 + 53.9337j),
    (600, 250, -57.7404 + 54.3405j),
    (699, 110, 13.0721 + 137.4954j),
]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNSIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(("unit", "frequency", "expected"), TRANSFER)
def test_transfer_function_has_the_published_values(unit: int, frequency: float, expected: complex) -> None:
    value = membrane.hydrodynamic_transfer(frequency, 3.5 * unit / 699)
    assert abs(value - expected) < 1e-5 * abs(expected)


def test_slope_of_the_phase_integral_is_the_wave_number() -> None:
    frequency = np.array([[120.0, 1000.0, 7000.0]])
    place = np.linspace(0.05, 3.45, 30)[:, None]
    step = 1e-5
    slope = membrane.phase_integral(frequency, place + step) - membrane.phase_integral(frequency, place - step)
    np.testing.assert_allclose(slope / (2 * step), membrane.wave_number(frequency, place), rtol=1e-7)


def test_transfer_function_is_finite_everywhere() -> None:
    with np.errstate(under="ignore"):
        values = membrane.hydrodynamic_transfer(membrane.grid(300), membrane.places(50)[:, None])
    assert np.isfinite(values).all()


def test_unit_zero_is_the_highest_frequency() -> None:
    expected = {0: 22_507.9, 100: 10_620.5, 200: 5011.3, 300: 2364.3, 400: 1115.0, 500: 524.8, 600: 244.8, 699: 110.35}
    found = membrane.resonance(membrane.places(700))
    for unit, hertz in expected.items():
        assert found[unit] == pytest.approx(hertz, abs=0.06)


@pytest.mark.parametrize(
    ("frequency", "unit", "rms"),
    [(200, 612, 63.7), (500, 493, 58.4), (1000, 401, 51.1), (2000, 309, 41.1), (4000, 216, 31.1), (8000, 124, 23.8)],
)
def test_a_tone_answers_most_at_its_place(frequency: float, unit: int, rms: float) -> None:
    answer = 0.3 * np.abs(membrane.hydrodynamic_transfer(frequency, membrane.places(700)))
    assert int(np.argmax(answer)) == pytest.approx(unit, abs=1)
    assert answer.max() == pytest.approx(rms, abs=0.1)
    assert membrane.resonance(membrane.places(700))[unit] / frequency == pytest.approx(1.11, abs=0.006)


@pytest.mark.parametrize(
    ("unit", "peak", "gain", "erb", "delay_ms"),
    [(100, 9544, 75.7, 3478, 0.26), (300, 2116, 134, 776.8, 1.39), (500, 472.7, 196, 159.5, 6.59)],
)
def test_gammatone_resembles_the_membrane(unit: int, peak: float, gain: float, erb: float, delay_ms: float) -> None:
    place = 3.5 * unit / 699
    f = np.linspace(0.02 * peak, 3 * peak, 20_001)
    value = membrane.gammatone_transfer(f, place)
    size = np.abs(value)
    best = int(np.argmax(size))
    assert f[best] == pytest.approx(peak, rel=0.015)
    assert size[best] == pytest.approx(gain, rel=0.15)
    assert np.trapezoid(size**2, f) / size[best] ** 2 == pytest.approx(erb, rel=0.1)
    slope = np.gradient(np.unwrap(np.angle(value)), f)[best] / (2 * np.pi)
    assert slope == pytest.approx(delay_ms / 1e3, rel=0.07)  # published orientation: the phase rises


@pytest.mark.parametrize("model", ["hydrodynamic", "gammatone"])
def test_published_answers_before_the_sound_and_causal_mirrors_it(model: membrane.MembraneModel) -> None:
    sound = np.zeros(2 * 7000)
    sound[2 * 3500] = 1.0
    found = {
        orientation: membrane_velocity(sound, Encoder(channels=36, membrane=model, orientation=orientation, ramp=0))
        for orientation in ("published", "causal")
    }
    low = slice(11, None)  # of 36: unit 214 of 700 and above
    before = {name: (v[low, :3500] ** 2).sum(axis=1) / (v[low] ** 2).sum(axis=1) for name, v in found.items()}
    assert before["published"].min() > 0.99
    assert before["causal"].max() < 0.01
    energy = {name: (v[low] ** 2).sum(axis=1) for name, v in found.items()}  # above 12 kHz sound folds back
    np.testing.assert_allclose(energy["published"], energy["causal"], rtol=1e-3)
    # Mirror images; the transform's length stretches time by 1e-4, here four tenths of a sample, so low units only.
    published = found["published"][18:, 1500:5501]
    mirrored = found["causal"][18:, 1501:5502][:, ::-1]
    alike = (published * mirrored).sum(axis=1) / np.sqrt((published**2).sum(axis=1) * (mirrored**2).sum(axis=1))
    assert alike.min() > 0.99


def test_a_tone_comes_out_with_the_size_of_the_transfer_function() -> None:
    time = np.arange(int(0.35 * RATE)) / RATE
    encoder = Encoder(channels=8, level=None)
    answer = membrane_velocity(prepare(0.4 * np.cos(2 * np.pi * 1000 * time), RATE, encoder), encoder)
    expected = 0.4 / np.sqrt(2) * np.abs(membrane.hydrodynamic_transfer(1000.0, membrane.places(8)))
    np.testing.assert_allclose(np.sqrt((answer[:, 2400:7200] ** 2).mean(axis=1)), expected, rtol=0.02, atol=0.02)


def test_stored_transfer_is_computed_once_and_survives_damage() -> None:
    said: list[str] = []
    first = np.array(membrane.stored_transfer(50, 7, threads=1, notice=said.append))
    assert len(said) == 1
    assert "7 places, 50 frequencies): some seconds, once; it is kept in" in said[0]
    membrane.stored_transfer(50, 7, notice=said.append)
    assert len(said) == 1
    folder = Path(membrane.cache_folder()) / "cochlea"
    path = next(folder.glob("*-7-50.npy"))
    stamp = path.stat().st_mtime_ns
    again = membrane.stored_transfer(50, 7)
    assert path.stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(again, first)
    expected = membrane.hydrodynamic_transfer(membrane.grid(50), membrane.places(7)[:, None])
    np.testing.assert_allclose(first, expected, rtol=1e-6, atol=1e-30)
    del again
    for damage in (lambda data: data[:-100], lambda data: b"", lambda data: data[:200] + bytes(len(data) - 200)):
        path.write_bytes(damage(path.read_bytes()))
        np.testing.assert_array_equal(membrane.stored_transfer(50, 7), first)


@pytest.mark.parametrize("channels", [1, 0, -3, 70_000, 7.5, True])
def test_a_wrong_number_of_channels_is_refused(channels: object) -> None:
    with pytest.raises(InputError, match="channels: expected a whole number from 2 to 65536"):
        membrane.places(channels)  # type: ignore[arg-type]
