"""Sound to spikes: preparation, determinism, seeds, refusals, sound files."""

import hashlib
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest

from snnsim.datasets import cochlea
from snnsim.datasets.audio import read_audio, resample
from snnsim.datasets.cochlea import Encoder, clip_seed, encode, encode_files, prepare, transform_length
from snnsim.errors import InputError, SnnsimFileError

RATE = 16_000
CHANNELS = 40


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNSIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def speech(seconds: float = 0.25, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Something between a vowel and noise, with an onset in the middle."""
    time = np.arange(int(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * f * time + seed) / (k + 1) for k, f in enumerate((180, 360, 720, 1440, 2900)))
    noise = np.random.default_rng(seed).normal(0, 0.3, time.size)
    return (tones + noise) * (time > seconds / 3)


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 8000).astype("<i2").tobytes())
    return path


def same(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> bool:
    return np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


def test_prepared_sound_has_the_level_and_the_ramps() -> None:
    sound = prepare(speech() + 3.0, RATE, Encoder())
    assert sound.size == 3 * 4000
    plain = prepare(speech() + 3.0, RATE, Encoder(ramp=0))
    assert np.sqrt(np.mean(plain**2)) == pytest.approx(0.3)
    np.testing.assert_array_equal(sound[1440:-1440], plain[1440:-1440])
    k = np.arange(1440)
    np.testing.assert_allclose(sound[:1440], plain[:1440] * (0.5 - 0.5 * np.cos(2 * np.pi * k / 2879)))
    np.testing.assert_allclose(sound[-1440:], plain[-1440:] * (0.5 - 0.5 * np.cos(2 * np.pi * k / 2879))[::-1])
    whole = prepare(speech(), RATE, Encoder(ramp="clip"))
    assert whole[0] == 0.0
    assert np.abs(whole[:600]).max() < np.abs(plain[:600]).max()


def test_resampling_keeps_a_tone() -> None:
    time = np.arange(800) / 8000
    got = resample(np.sin(2 * np.pi * 440 * time), 8000, 48_000)
    wanted = np.sin(2 * np.pi * 440 * np.arange(4800) / 48_000)
    assert np.abs(got - wanted)[300:-300].max() < 0.01


def test_lengths_of_the_transform() -> None:
    assert [transform_length(n) for n in (480, 2 * 8280, 2 * 8280 + 2, 2 * 23_280)] == [9000, 9000, 12_000, 24_000]
    with pytest.raises(InputError, match=r"the sound lasts 8\.00 s, more than 7\.97 s: cut it or set max_seconds"):
        transform_length(8 * 48_000)


def test_same_seed_same_spikes_for_any_threads_and_blocks() -> None:
    sound = speech()
    first = encode(sound, RATE, seed=3, channels=CHANNELS)
    assert first[0].size > 100
    for threads, block in ((1, 1), (2, 20), (3, 7), (1, 700)):
        assert same(first, encode(sound, RATE, seed=3, channels=CHANNELS, threads=threads, block=block))


def test_times_ascend_and_ties_are_in_order_of_unit() -> None:
    times, units = encode(speech(), RATE, seed=1, channels=CHANNELS)
    assert times.dtype == np.float64
    assert units.dtype == np.int32
    assert units.min() >= 0
    assert units.max() < CHANNELS
    samples = times * 24_000
    np.testing.assert_allclose(samples, np.rint(samples), atol=1e-6)
    step = np.diff(times)
    assert (step >= 0).all()
    assert (np.diff(units)[step == 0] > 0).all()
    for unit in np.unique(units):
        assert (np.diff(np.rint(samples[units == unit])) >= 25).all()


def test_neighbouring_seeds_are_independent() -> None:
    sound = speech(0.6)
    found = {
        seed: set(zip(*(a.tolist() for a in encode(sound, RATE, seed=seed, channels=CHANNELS)), strict=True))
        for seed in (5, 6, 902_144)
    }
    near, far = len(found[5] & found[6]), len(found[5] & found[902_144])
    assert near < 0.1 * len(found[5])
    assert abs(near - far) < 6 * np.sqrt(far + 1)
    shifted = {(round(time * 24_000) + 1, unit) for time, unit in found[5]}
    assert len(shifted & {(round(time * 24_000), unit) for time, unit in found[6]}) < 0.1 * len(found[5])


def test_level_of_the_recording_has_no_effect() -> None:
    sound = speech()
    first = encode(sound, RATE, seed=1, channels=CHANNELS)
    for factor in (2.0**-20, 4.0):  # powers of two: the same bits
        assert same(first, encode(sound * factor, RATE, seed=1, channels=CHANNELS))
    extreme = encode(sound * 1e-200, RATE, seed=1, channels=CHANNELS)
    assert extreme[0].size == pytest.approx(first[0].size, rel=0.02)


def test_level_decides_when_it_is_left_alone() -> None:
    counts = [encode(speech() * f, RATE, seed=1, channels=CHANNELS, level=None)[0].size for f in (0.01, 0.1, 1.0)]
    assert counts[0] < counts[1] < counts[2]


def test_orientation_turns_the_delays_around() -> None:
    click = np.zeros(RATE // 2)
    click[RATE // 4] = 1.0
    lead = {}
    for orientation in ("published", "causal"):
        times, units = encode(click, RATE, seed=1, channels=CHANNELS, orientation=orientation)  # type: ignore[arg-type]
        near = (np.abs(times - 0.25) < 0.03) & (units > 30)
        lead[orientation] = times[near].mean() - 0.25
    assert lead["published"] < -0.002
    assert lead["causal"] > 0.002


def test_gammatone_needs_no_stored_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "none"))
    assert encode(speech(), RATE, seed=0, channels=20, membrane="gammatone")[0].size > 50
    assert not (tmp_path / "none").exists()


def test_max_seconds_cuts_before_anything_else() -> None:
    sound = speech(0.5)
    cut = sound - sound.mean()
    expected = prepare(cut[: RATE // 4], RATE, Encoder(ramp=0))
    # The mean is that of the whole clip, and taken off again after the cut by the second call.
    got = prepare(sound, RATE, Encoder(ramp=0, max_seconds=0.25))
    np.testing.assert_allclose(got - got.mean(), expected, atol=2e-3)
    assert encode(sound, RATE, seed=1, channels=CHANNELS, max_seconds=0.25)[0].max() < 0.28


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (np.zeros(4000), RATE, "the sound is silent"),
        (np.full(4000, 0.7), RATE, "the sound is silent"),
        (np.zeros(0), RATE, "expected sound, got no samples"),
        (np.ones((10, 2)), RATE, "expected one dimension"),
        (np.array([0.1] * 99 + [np.nan]), RATE, "sample 99 is not finite"),
        (np.array([0.1] * 99 + [np.inf]), RATE, "sample 99 is not finite"),
        (np.full(4000, 1e300), RATE, "expected samples near full scale 1"),
        (["a"], RATE, "expected numbers"),
        (np.ones(20), RATE, "the sound lasts 1.2 ms; expected at least 10 ms"),
        (np.ones(4000), 0, "sampling rate: expected whole Hz from 1000 to 768000, got 0"),
        (np.ones(4000), 22_050.5, "sampling rate"),
        (np.ones(4000), float("nan"), "sampling rate"),
    ],
)
def test_sound_that_cannot_be_encoded_is_refused(waveform: object, rate: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode(waveform, rate, seed=0, channels=CHANNELS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"membrane": "basilar"}, "membrane: expected one of hydrodynamic, gammatone, got 'basilar'"),
        ({"orientation": "forward"}, "orientation: expected one of published, causal, got 'forward'"),
        ({"ramp": -1.0}, "ramp: expected 0 to 10 seconds or 'clip', got -1.0"),
        ({"ramp": float("nan")}, "ramp"),
        ({"level": 0.0}, "level: expected a root mean square above 0"),
        ({"max_seconds": 0.0}, "max_seconds: expected"),
        ({"channels": 1}, "channels: expected a whole number from 2"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Encoder(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match="seed: expected a whole number"):
        encode(speech(), RATE, seed=seed, channels=CHANNELS)


def test_clip_seed_is_the_checksum_of_the_name() -> None:
    assert clip_seed("7_jackson_5") == zlib.crc32(b"7_jackson_5")
    assert clip_seed("7_jackson_5", 2) == (2 << 32) + zlib.crc32(b"7_jackson_5")
    with pytest.raises(InputError, match="seed: expected a whole number from 0 to 4294967295"):
        clip_seed("a", 1 << 32)


def test_files_come_in_order_with_the_seed_of_their_name(tmp_path: Path) -> None:
    names = [f"clip{k}" for k in range(12)]
    paths = [write_wav(tmp_path / f"{name}.wav", speech(seed=k)) for k, name in enumerate(names)]
    encoder = Encoder(channels=20, membrane="gammatone")
    seen: list[tuple[int, int]] = []
    runs = [
        list(encode_files(paths, encoder=encoder, threads=threads, progress=lambda *at: seen.append(at)))
        for threads in (1, 2)
    ]
    assert seen[:12] == [(k + 1, 12) for k in range(12)]
    for path, name, first, second in zip(paths, names, *runs, strict=True):
        waveform, rate = read_audio(path)
        alone = encode(waveform, rate, seed=clip_seed(name), channels=20, membrane="gammatone")
        assert same(first, alone)
        assert same(second, alone)
    other = next(iter(encode_files(paths[:1], encoder=encoder, seed=1)))
    assert not same(other, runs[0][0])
    with pytest.raises(InputError, match="names: expected one a file"):
        list(encode_files(paths, names=["a"], encoder=encoder))


def test_a_file_that_cannot_be_encoded_is_named(tmp_path: Path) -> None:
    good = write_wav(tmp_path / "good.wav", speech())
    silent = write_wav(tmp_path / "silent.wav", np.zeros(4000))
    with pytest.raises(SnnsimFileError, match=r"silent\.wav: the sound is silent"):
        list(encode_files([good, silent], encoder=Encoder(channels=8, membrane="gammatone")))


def test_wav_files_of_every_kind_read_alike(tmp_path: Path) -> None:
    from scipy.io import wavfile

    sound = np.sin(np.linspace(0, 60, 2000)) * 0.5
    kinds = {
        "u1": ((sound * 128) + 128).astype(np.uint8),
        "i2": (sound * 32_768).astype(np.int16),
        "i4": (sound * 2.0**31).astype(np.int32),
        "f4": sound.astype(np.float32),
        "f8": sound,
    }
    for name, samples in kinds.items():
        wavfile.write(tmp_path / f"{name}.wav", 11_025, samples)
        got, rate = read_audio(tmp_path / f"{name}.wav")
        assert rate == 11_025
        np.testing.assert_allclose(got, sound, atol=0.009 if name == "u1" else 4e-5)
    stereo = np.stack([sound, np.zeros_like(sound)], axis=1)
    wavfile.write(tmp_path / "two.wav", 11_025, stereo)
    np.testing.assert_allclose(read_audio(tmp_path / "two.wav")[0], sound / 2)


def test_flac_needs_soundfile(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.flac", 0.5 * np.sin(np.linspace(0, 60, 2000)), 16_000)
    got, rate = read_audio(tmp_path / "a.flac")
    assert rate == 16_000
    assert np.abs(got).max() == pytest.approx(0.5, abs=0.01)


def test_damaged_sound_files_give_one_sentence(tmp_path: Path) -> None:
    whole = write_wav(tmp_path / "whole.wav", speech()).read_bytes()
    generator = np.random.default_rng(0)
    damaged = [b"", b"RIFF", whole[:20], whole[:44], b"RIFF" + bytes(8) + b"WAVE", b"not a sound file at all" * 9]
    for _ in range(150):
        data = bytearray(whole[: int(generator.integers(12, 400))] if generator.random() < 0.3 else whole[:2000])
        for _ in range(int(generator.integers(1, 6))):
            data[int(generator.integers(0, min(60, len(data))))] = int(generator.integers(0, 256))
        damaged.append(bytes(data))
    refused = 0
    for number, data in enumerate(damaged):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(data)
        sentence = ""
        try:
            waveform, rate = read_audio(path)
        except SnnsimFileError as error:
            sentence = str(error)
        if sentence:
            refused += 1
            assert sentence.startswith(f"{path}: ")
            assert "\n" not in sentence
        else:
            assert np.isfinite(waveform).all()
            assert rate > 0
    assert refused > 20
    with pytest.raises(SnnsimFileError, match=r"missing\.wav: cannot be read"):
        read_audio(tmp_path / "missing.wav")


def test_description_names_everything_that_decides_the_spikes() -> None:
    base = Encoder().description()
    assert base["encoder_version"] == cochlea.ENCODER_VERSION
    assert base["hair_cell"]["g"] == 2000.0
    hashes = {
        hashlib.sha256(repr(encoder.description()).encode()).hexdigest()
        for encoder in (Encoder(), Encoder(membrane="gammatone"), Encoder(ramp="clip"), Encoder(channels=140))
    }
    assert len(hashes) == 4
