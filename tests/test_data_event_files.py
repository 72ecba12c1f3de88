"""Event-camera files: N-MNIST, DVS128 Gesture, npz, csv, and tonic's data sets."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzz_worker import mutants

from snnsim.datasets import open_dataset
from snnsim.datasets.event_files import (
    DVS128,
    PixelEvents,
    Sensor,
    open_event_folder,
    pixels_to_unit,
    read_aedat,
    read_event_file,
    read_nmnist,
)
from snnsim.datasets.heidelberg import write_heidelberg
from snnsim.datasets.tonic_adapter import from_tonic, open_tonic
from snnsim.errors import InputError, SnnsimError, SnnsimFileError
from snnsim.events import Events


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))


def pixels(seed: int = 0, n: int = 50, side: int = 34) -> PixelEvents:
    rng = np.random.default_rng(seed)
    return PixelEvents(
        np.sort(rng.integers(0, 8000, n)), rng.integers(0, side, n), rng.integers(0, side, n), rng.integers(0, 2, n)
    )


def nmnist_bytes(events: PixelEvents) -> bytes:
    out = bytearray()
    for t, x, y, p in zip(events.t, events.x, events.y, events.p, strict=True):
        out += bytes([x, y, (int(p) << 7) | (int(t) >> 16), (int(t) >> 8) & 255, int(t) & 255])
    return bytes(out)


def aedat_bytes(events: PixelEvents, overflow: int = 0, per_packet: int = 20) -> bytes:
    out = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    out += struct.pack("<HHIIIIII", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)  # a packet of another kind
    for start in range(0, events.t.size, per_packet):
        part = slice(start, start + per_packet)
        words = (events.x[part] << 17) | (events.y[part] << 2) | (events.p[part] << 1) | 1
        n = words.size
        out += struct.pack("<HHIIIIII", 1, 1, 8, 4, overflow, n, n, n)
        out += np.stack([words, events.t[part]], axis=1).astype("<u4").tobytes()
    return out


def equal(a: PixelEvents, b: PixelEvents) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("t", "x", "y", "p"))


def test_nmnist_files_are_read_with_their_clock_overflows(tmp_path: Path) -> None:
    events = pixels()
    path = tmp_path / "a.bin"
    path.write_bytes(nmnist_bytes(events))
    assert equal(read_nmnist(path), events)
    first, marker, second = nmnist_bytes(events)[:50], bytes([0, 240, 0, 0, 0]), nmnist_bytes(events)[50:]
    path.write_bytes(first + marker + second)
    late = read_nmnist(path)
    assert np.array_equal(late.t[:10], events.t[:10])
    assert np.array_equal(late.t[10:], events.t[10:] + 8192)


def test_aedat_files_are_read_past_other_packets_and_invalid_events(tmp_path: Path) -> None:
    events = pixels(side=128)
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat_bytes(events))
    assert equal(read_aedat(path), events)
    path.write_bytes(aedat_bytes(events, overflow=1))
    assert np.array_equal(read_aedat(path).t, events.t + (1 << 31))
    data = bytearray(aedat_bytes(events))
    data[data.index(b"END-HEADER") + 12 + 36 + 28] &= 0xFE
    path.write_bytes(data)
    assert read_aedat(path).t.size == 49


def test_readers_agree_with_tonics(tmp_path: Path) -> None:
    tonic_io = pytest.importorskip("tonic.io")
    events = pixels(1)
    path = tmp_path / "a.bin"
    path.write_bytes(nmnist_bytes(events)[:100] + bytes([0, 240, 0, 0, 0]) + nmnist_bytes(events)[100:])
    theirs = tonic_io.read_mnist_file(str(path), dtype=np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    assert equal(read_nmnist(path), PixelEvents(theirs["t"], theirs["x"], theirs["y"], theirs["p"]))


@pytest.mark.parametrize("seconds", [False, True])
def test_npz_and_csv_files_give_the_same(seconds: bool, tmp_path: Path) -> None:
    events = pixels()
    t = events.t / 1e6 if seconds else events.t
    np.savez_compressed(tmp_path / "a.npz", t=t, x=events.x.astype(np.uint8), y=events.y, p=events.p == 1)
    np.savez(tmp_path / "a.npz", t=t, x=events.x.astype(np.uint8), y=events.y, p=events.p)
    assert equal(read_event_file(tmp_path / "a.npz"), events)
    lines = [f"{a},{x},{y},{p}" for a, x, y, p in zip(t.tolist(), events.x, events.y, events.p, strict=True)]
    (tmp_path / "a.csv").write_text("t, x, y, p\n" + "\n".join(lines) + "\n")
    assert equal(read_event_file(tmp_path / "a.csv"), events)
    (tmp_path / "b.csv").write_text("x,t\n3,7\n")
    assert equal(read_event_file(tmp_path / "b.csv"), PixelEvents(*(np.array([v]) for v in (7, 3, 0, 0))))


def huge_npz() -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (1 << 40,), "fortran_order": False, "descr": "<i8"})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("t.npy", header.getvalue())
        archive.writestr("x.npy", header.getvalue())
    return out.getvalue()


def pickled_npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, t=np.array([{"a": 1}], dtype=object), x=np.zeros(1))
    return out.getvalue()


WRONG: list[tuple[str, bytes, str]] = [
    ("a.bin", b"1234567", "expected 5 bytes an event, got 7"),
    ("a.bin", b"", "is empty"),
    ("a.txt", b"x", "known event files: .bin, .aedat, .npz, .csv"),
    ("a.aedat", b"#!AER-DAT2.0\r\n", "is not an AEDAT 3 file"),
    ("a.aedat", b"#!AER-DAT3.1\r\n#", "header: has no end"),
    ("a.aedat", aedat_bytes(pixels())[:-3], "declares 10 events of 8 bytes; it was cut off"),
    ("a.aedat", aedat_bytes(pixels())[:70], "cut off"),
    ("a.npz", b"PK\x03\x04", "is not a sound .npz file"),
    ("a.npz", huge_npz(), "t: expected one row of numbers"),
    ("a.npz", pickled_npz(), "t: expected one row of numbers, got object"),
    ("a.csv", b"t,y\n1,2\n", "expected columns t and x"),
    ("a.csv", b"t,x\n1,two\n", "x: expected numbers"),
    ("a.csv", b"t,x\n1\n", "x: expected numbers"),
    ("a.csv", b"t,x\nnan,1\n", "t: has a value that is not a number"),
    ("a.csv", b"t,x\n1,1.5\n", "x: expected whole numbers"),
    ("a.csv", b"\xff\xfe\x00", "is not a text"),
]


@pytest.mark.parametrize(("name", "data", "sentence"), WRONG)
def test_wrong_event_files_are_one_sentence(name: str, data: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SnnsimFileError, match=sentence) as caught:
        read_event_file(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["bin", "aedat", "npz", "csv"])
def test_mutants_of_event_files_raise_one_family(kind: str, tmp_path: Path) -> None:
    events = pixels()
    buffer = io.BytesIO()
    np.savez(buffer, t=events.t, x=events.x, y=events.y, p=events.p)
    text = "t,x\n" + "\n".join(f"{t},{x}" for t, x in zip(events.t, events.x, strict=True))
    good = {"bin": nmnist_bytes(events), "aedat": aedat_bytes(events), "npz": buffer.getvalue(), "csv": text.encode()}
    path = tmp_path / f"m.{kind}"
    refused = 0
    for _, data in mutants(good[kind], 150, seed=3):
        path.write_bytes(data)
        try:
            read_event_file(path)
        except SnnsimError:
            refused += 1
    assert refused > 0


def make_folder(home: Path, write: Callable[[Path, int], None]) -> Path:
    for part, n in (("Train", 3), ("Test", 2)):
        for label in ("0", "1"):
            (home / part / label).mkdir(parents=True)
            for i in range(n):
                write(home / part / label / f"{i:05d}", 10 * i + int(label) + (100 if part == "Test" else 0))
    return home


def test_a_folder_of_nmnist_is_a_data_set(tmp_path: Path) -> None:
    folder = make_folder(
        tmp_path / "nmnist",
        lambda path, seed: path.with_suffix(".bin").write_bytes(nmnist_bytes(pixels(seed))) and None,
    )
    data = open_dataset(folder)
    assert data.test is not None
    assert (data.n_units, data.class_names, len(data.train), len(data.test)) == (34 * 34 * 2, ("0", "1"), 6, 4)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    one = pixels(0)
    expected = sorted(zip((one.t - one.t[0]) / 1e6, pixels_to_unit(one, Sensor(34, 34)), strict=True))
    assert [(t, u) for t, u in zip(data.train[0].times, data.train[0].units, strict=True)] == expected
    assert open_dataset(folder).train == data.train
    write_heidelberg(tmp_path / "a_train.h5", data.train)
    assert open_dataset(tmp_path / "a_train.h5").train == data.train


def test_the_sensor_of_plain_files_is_the_largest_pixel(tmp_path: Path) -> None:
    def write(path: Path, seed: int) -> None:
        events = pixels(seed, side=9)
        np.savez(path.with_suffix(".npz"), t=events.t, x=events.x, y=events.y)

    folder = make_folder(tmp_path / "plain", write)
    assert open_event_folder(folder).n_units == 81
    assert open_event_folder(folder, sensor=Sensor(10, 12)).n_units == 240
    with pytest.raises(SnnsimFileError, match="x: has the value 8; expected 0 to 4"):
        open_event_folder(folder, sensor=Sensor(5, 9))


def test_descending_times_are_refused_or_sorted(tmp_path: Path) -> None:
    def write(path: Path, seed: int) -> None:
        path.with_suffix(".csv").write_text("t,x\n5,1\n3,0\n")

    folder = make_folder(tmp_path / "plain", write)
    with pytest.raises(SnnsimFileError, match=r"times that descend.*--sort"):
        open_event_folder(folder)
    data = open_dataset(folder, sort=True)
    assert data.train[0].units.tolist() == [0, 1]
    assert np.allclose(data.train[0].times, [0.0, 2e-6])


def gestures(home: Path) -> Path:
    home.mkdir()
    for user in (1, 2):
        path = home / f"user{user:02d}_led.aedat"
        path.write_bytes(aedat_bytes(pixels(user, 400, 128)))
        path.with_name(f"{path.stem}_labels.csv").write_text(
            "class,startTime_usec,endTime_usec\n1,0,4000\n3,4000,7000\n"
        )
    (home / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (home / "trials_to_test.txt").write_text("user02_led.aedat\n")
    return home


def test_a_folder_of_gestures_is_a_data_set(tmp_path: Path) -> None:
    data = open_dataset(gestures(tmp_path / "gesture"))
    assert data.test is not None
    assert data.n_units == DVS128.n_units == 32768
    assert data.train.labels.tolist() == [0, 2]
    assert data.unseen_speakers == (2,)
    assert data.n_classes == 3
    whole = pixels(1, 400, 128)
    assert data.train.counts.tolist() == [
        int((whole.t < 4000).sum()),
        int(((whole.t >= 4000) & (whole.t < 7000)).sum()),
    ]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("user01_led_labels.csv", "class\n1,2\n", "expected lines of class,start,end"),
        ("user01_led_labels.csv", "class\n1,x,2\n", "in whole numbers"),
        ("trials_to_train.txt", "../user01_led.aedat\n", "outside the folder"),
        ("trials_to_train.txt", "user09_led.aedat\n", "user09_led_labels.csv.*cannot be read"),
    ],
)
def test_wrong_gesture_folders_are_refused(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    folder = gestures(tmp_path / "gesture")
    (folder / name).write_text(text)
    with pytest.raises(SnnsimFileError, match=sentence):
        open_dataset(folder)


class Pretend:
    """What a tonic data set looks like."""

    sensor_size = (34, 34, 2)
    classes = ("a", "b")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        one = pixels(i)
        events = np.zeros(one.t.size, dtype=[("t", int), ("x", int), ("y", int), ("p", int)])
        events["t"], events["x"], events["y"], events["p"] = one.t, one.x, one.y, one.p
        return events, i % 2


def test_tonic_samples_become_events() -> None:
    events = from_tonic(Pretend(), class_names=Pretend.classes)
    assert (len(events), events.n_units, events.labels.tolist()) == (3, 2312, [0, 1, 0])
    assert events[1].n_events == 50
    assert sorted(events[1].units.tolist()) == sorted(pixels_to_unit(pixels(1), Sensor(34, 34)).tolist())
    assert len(from_tonic(Pretend(), indices=[2])) == 1
    with pytest.raises(InputError, match="sensor_size"):
        from_tonic([1, 2])


def test_tonics_own_reader_of_the_layout_gives_our_events(tmp_path: Path) -> None:
    tonic = pytest.importorskip("tonic")
    rng = np.random.default_rng(0)
    times = [np.sort(rng.integers(0, 900000, 80)) / 1e6 for _ in range(4)]
    units = [rng.integers(0, 700, 80) for _ in range(4)]
    names = ("a", "b")
    ours = Events.from_lists(times, units, 700, [0, 1, 1, 0], class_names=names, speakers=[0, 0, 1, 1])
    write_heidelberg(tmp_path / "SHD" / "shd_train.h5", ours)
    (tmp_path / "SHD" / "shd_train.h5.zip").touch()
    theirs = from_tonic(tonic.datasets.SHD(str(tmp_path), train=True), class_names=names)
    assert theirs.n_units == 700
    assert np.array_equal(theirs.labels, ours.labels)
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a.times, b.times, atol=1.01e-6)  # tonic cuts off below a microsecond
        assert sorted(a.units.tolist()) == sorted(b.units.tolist())


def test_unknown_tonic_names_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("tonic")
    with pytest.raises(InputError, match="tonic has no data set 'Nothing'; known: "):
        open_tonic("Nothing", tmp_path)
