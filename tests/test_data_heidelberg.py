"""Files in SHD's layout: reading, archives, the cache, and everything that can be wrong with a file."""

from __future__ import annotations

import errno
import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from snnsim.datasets import cache, heidelberg
from snnsim.datasets.cache import cached_events, content_digest, read_flat, write_flat
from snnsim.datasets.heidelberg import read_heidelberg
from snnsim.datasets.heidelberg_write import write_heidelberg, write_spike_file
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events
from snnsim.files import cache_folder

NAMES = ("null", "eins", "zwei")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def spikes(seed: int = 0, n: int = 9, n_units: int = 70) -> tuple[list[Any], list[Any], Any]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(200, 400, n)
    times = [np.sort(rng.random(k)).astype(np.float16) for k in sizes]
    units = [rng.integers(0, n_units, k).astype(np.uint16) for k in sizes]
    return times, units, rng.integers(0, 3, n).astype(np.uint16)


def make_file(
    path: Path, change: Callable[[h5py.File], None] | None = None, kind: str = "float16", **more: Any
) -> Path:
    times, units, labels = spikes(**more)
    n = len(times)
    with h5py.File(path, "w") as file:
        t = file.create_dataset("spikes/times", (n,), dtype=h5py.vlen_dtype(np.dtype(kind)))
        u = file.create_dataset("spikes/units", (n,), dtype=h5py.vlen_dtype(np.dtype(np.uint16)))
        for i in range(n):
            t[i], u[i] = times[i].astype(kind), units[i]
        file["labels"] = labels
        file["extra/speaker"] = np.arange(n, dtype=np.uint16) % 4
        file["extra/index"] = np.arange(n, dtype=np.uint16)
        file["extra/keys"] = np.array([name.encode() for name in NAMES])
        if change:
            change(file)
    return path


def bases(array: Any) -> list[Any]:
    """The array and everything it is a view of."""
    found = []
    while array is not None:
        found.append(array)
        array = getattr(array, "base", None)
    return found


def test_reading_keeps_every_event_label_speaker_and_name(tmp_path: Path) -> None:
    times, units, labels = spikes()
    events = read_heidelberg(make_file(tmp_path / "a.h5"))
    assert events.n_units == 70
    assert events.class_names == NAMES
    assert events.labels.tolist() == labels.tolist()
    assert events.speakers is not None
    assert events.recordings is not None
    assert events.speakers.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert events.recordings.tolist() == list(range(9))
    for i in range(9):
        expected = sorted(zip(times[i].astype(np.float64).tolist(), units[i].tolist(), strict=True))
        assert list(zip(events[i].times.tolist(), events[i].units.tolist(), strict=True)) == expected
    (stored,) = (cache_folder() / "events").iterdir()
    assert any(isinstance(part, np.memmap) for part in bases(events.times)), stored
    Events(**{name: getattr(events, name) for name in Events.__dataclass_fields__})  # passes all checks


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_every_float_type_of_times_is_read(tmp_path: Path, kind: str) -> None:
    events = read_heidelberg(make_file(tmp_path / "a.h5", kind=kind))
    reference = read_heidelberg(make_file(tmp_path / "b.h5"))
    np.testing.assert_allclose(events.times, reference.times, atol=6e-7 if kind == "float32" else 0)


def test_float16_times_are_not_scaled_before_they_are_widened(tmp_path: Path) -> None:
    def late(file: h5py.File) -> None:
        file["spikes/times"][0] = np.array([1.0, 60000.0], dtype=np.float16)
        file["spikes/units"][0] = np.array([1, 2], dtype=np.uint16)

    assert read_heidelberg(make_file(tmp_path / "a.h5", late))[0].times.tolist() == [1.0, 60000.0]


def test_archives_give_the_same_events(tmp_path: Path) -> None:
    plain = make_file(tmp_path / "a_train.h5")
    packed = tmp_path / "b_train.h5.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    zipped = tmp_path / "c_train.h5.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(plain, "folder/c_train.h5")
    events = read_heidelberg(plain)
    assert read_heidelberg(packed) == events
    assert read_heidelberg(zipped) == events
    assert list((cache_folder() / "unpacked").iterdir()) == []


def test_writing_and_reading_gives_equal_events(tmp_path: Path) -> None:
    events = read_heidelberg(make_file(tmp_path / "a.h5"))
    write_heidelberg(tmp_path / "b.h5", events)
    assert read_heidelberg(tmp_path / "b.h5") == events
    odd = Events.from_lists([[0.1234567, 2.0], []], [[4, 3], []], 9, [1, 0], [3.5, 0.25], class_names=("x", "y"))
    write_heidelberg(tmp_path / "c.h5", odd)
    assert read_heidelberg(tmp_path / "c.h5") == odd
    nameless = Events.from_lists([[0.25], [0.5]], [[4], [3]], 9, [-1, 70_000], [61_000.0, 1.0])
    write_heidelberg(tmp_path / "d.h5.gz", nameless)
    assert read_heidelberg(tmp_path / "d.h5.gz") == nameless
    late = Events.from_lists([[65_000.0]], [[4]], 9, [0])
    write_heidelberg(tmp_path / "e.h5", late)
    assert read_heidelberg(tmp_path / "e.h5") == late
    with pytest.raises(InputError, match="times from 0 to 60000 s; float16 holds no more"):
        write_heidelberg(tmp_path / "f.h5", late, time_dtype="float16")
    with pytest.raises(InputError, match="stores units in 16 bits; 65537 units do not fit"):
        write_heidelberg(tmp_path / "f.h5", Events.from_lists([[0.5]], [[4]], 65_537, [0]))
    assert not (tmp_path / "f.h5").exists()


def test_both_ways_of_writing_give_the_same_file(tmp_path: Path) -> None:
    times, units = [[0.5, 0.5, 1.25], []], [[3, 7, 1], []]
    events = Events.from_lists(times, units, 9, [1, 0], [2.0, 2.0], class_names=("x", "y"))
    write_heidelberg(tmp_path / "a.h5", events)
    write_spike_file(tmp_path / "b.h5", zip(times, units, strict=True), [1, 0], n_units=9, keys=["x", "y"])
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        for name in ("labels", "extra/keys", "spikes/times", "spikes/units"):
            assert a[name].dtype == b[name].dtype, name
            assert all(np.array_equal(x, y) for x, y in zip(a[name][:], b[name][:], strict=True)), name
        assert dict(a.attrs) == dict(b.attrs)
        assert set(a["extra"]) - set(b["extra"]) == {"duration"}


def test_the_second_reading_starts_no_worker_and_does_not_parse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file(tmp_path / "a.h5")
    first = read_heidelberg(path)
    monkeypatch.setattr(heidelberg, "run_guarded", None)
    monkeypatch.setattr(heidelberg, "convert_heidelberg", None)
    assert read_heidelberg(path) == first


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.h5")
    first = read_heidelberg(path)
    make_file(path, seed=1)
    assert read_heidelberg(path) != first


def test_content_digest_is_remembered_only_for_files_that_rest(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    fresh = content_digest(path)
    assert not (cache_folder() / "seen").exists()
    os.utime(path, (1e9, 1e9))
    assert content_digest(path) == fresh
    path.write_bytes(b"two")
    assert content_digest(path) != fresh


def test_a_damaged_cache_file_is_made_again(tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.h5")
    first = read_heidelberg(path)
    digest = first.digest()
    (stored,) = (cache_folder() / "events").iterdir()
    data = stored.read_bytes()
    del first
    for damaged in (data[:-9], b"", data[:1000], b"x" * len(data)):
        stored.write_bytes(damaged)
        assert read_heidelberg(path).digest() == digest
        assert stored.read_bytes() == data


def test_flat_files_hold_everything_and_name_their_checksums(tmp_path: Path) -> None:
    events = read_heidelberg(make_file(tmp_path / "a.h5"))
    write_flat(tmp_path / "x.snnev", events.subset([4, 2]))
    assert read_flat(tmp_path / "x.snnev", verify=True) == events.subset([4, 2])
    data = bytearray((tmp_path / "x.snnev").read_bytes())
    data[100] ^= 1
    (tmp_path / "x.snnev").write_bytes(data)
    with pytest.raises(SnnsimFileError, match="times: does not match its checksum"):
        read_flat(tmp_path / "x.snnev", verify=True)


def put(name: str, values: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        if values is not None:
            file[name] = values

    return change


def sample(times: list[float], units: list[int] | None = None, index: int = 4) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file["spikes/times"][index] = np.array(times, dtype=np.float16)
        given = np.zeros(len(times)) if units is None else np.array(units)
        file["spikes/units"][index] = given.astype(np.uint16)

    return change


def huge(file: h5py.File) -> None:
    del file["spikes/times"], file["spikes/units"], file["labels"]
    for name, base in (("times", "f2"), ("units", "u2")):
        file.create_dataset(f"spikes/{name}", (5_000_000_000,), dtype=h5py.vlen_dtype(np.dtype(base)), chunks=(1000,))
    file.create_dataset("labels", (5_000_000_000,), dtype="u2", chunks=(1000,))


def overlapping(file: h5py.File) -> None:
    """Let all samples share one long stretch of the file, so that a small file declares much."""
    n = 4000
    times, units = np.zeros(4000, np.float16), np.zeros(4000, np.uint16)
    del file["spikes/times"], file["spikes/units"], file["labels"]
    t = file.create_dataset("spikes/times", (n,), dtype=h5py.vlen_dtype(np.dtype("f2")))
    u = file.create_dataset("spikes/units", (n,), dtype=h5py.vlen_dtype(np.dtype("u2")))
    t[0], u[0] = times, units
    file["labels"] = np.zeros(n, np.uint16)


def gap(file: h5py.File) -> None:
    file["spikes/units"][0] = np.arange(70, dtype=np.uint16)
    file["spikes/times"][0] = np.zeros(70, dtype=np.float16)
    file["spikes/units"][1] = np.array([50000], dtype=np.uint16)
    file["spikes/times"][1] = np.zeros(1, dtype=np.float16)


def declare(value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.attrs["n_units"] = value

    return change


WRONG = {
    "times missing": (put("spikes/times", None), "spikes/times: is missing"),
    "labels missing": (put("labels", None), "labels: is missing"),
    "times of integers": (put("spikes/times", np.zeros((9, 3), int)), "expected one array of floating-point seconds"),
    "times a group": (
        lambda file: (file.__delitem__("spikes/times"), file.create_group("spikes/times"))[0],
        "is not a data set",
    ),
    "units of floats": (
        lambda file: (
            file.__delitem__("spikes/units"),
            file.create_dataset("spikes/units", (9,), dtype=h5py.vlen_dtype(np.dtype("f4"))),
        )[0],
        "expected one array of whole numbers",
    ),
    "labels of floats": (put("labels", np.zeros(9)), "labels: expected 9 whole numbers"),
    "labels too few": (put("labels", np.zeros(5, int)), "labels: expected 9 whole numbers, one a sample"),
    "label without a class": (put("labels", np.full(9, 3)), "label 3 has no class"),
    "speakers too few": (put("extra/speaker", np.zeros(5, int)), "extra/speaker: expected 9"),
    "names of numbers": (put("extra/keys", np.zeros(3)), "extra/keys: expected class names"),
    "not a number": (sample([0.1, float("nan")]), "sample 4: has a time that is not a finite number"),
    "infinite": (sample([0.1, float("inf")]), "sample 4: has a time that is not a finite number"),
    "negative": (sample([-0.5, 0.1]), r"sample 4: has an event at -0\.5 s"),
    "descending": (sample([0.5, 0.25]), r"sample 4: has times that descend.*--sort"),
    "units too few": (
        lambda file: file["spikes/units"].__setitem__(4, np.zeros(1, np.uint16)),
        "sample 4: has .* times but 1 units",
    ),
    "unit above the declared": (declare(60), r"has an event of unit 6\d; expected units in \[0, 60\)"),
    "declared wrongly": (declare(-4), "n_units: expected a whole number"),
    "a lone far unit": (gap, r"has unit 50000 although the units below end at 69"),
    "no samples": (
        lambda file: (
            [put("labels", np.zeros(0, int))(file)]
            + [put(f"spikes/{n}", None)(file) for n in ("times", "units")]
            + [
                file.create_dataset(f"spikes/{n}", (0,), dtype=h5py.vlen_dtype(np.dtype(k)))
                for n, k in (("times", "f2"), ("units", "u2"))
            ]
        ),
        "holds no samples",
    ),
    "huge": (huge, "declares 5000000000 samples, more than"),
    "short duration": (
        lambda file: file.__setitem__("extra/duration", np.full(9, 0.5)),
        "ends at 0.5 s but has an event",
    ),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_file_is_one_sentence_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    change, sentence = WRONG[name]
    path = make_file(tmp_path / "wrong.h5", change)  # type: ignore[arg-type]
    with pytest.raises(SnnsimFileError, match=sentence) as caught:
        read_heidelberg(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not list((cache_folder() / "events").iterdir())


def test_descending_times_are_sorted_on_request(tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.h5", sample([0.5, 0.25], [1, 2]))
    events = read_heidelberg(path, sort=True)
    assert events[4].times.tolist() == [0.25, 0.5]
    assert events[4].units.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"hello, this is no data", "is not an HDF5 file"),
        (b"\x1f\x8bnonsense", "damaged"),
        (gzip.compress(b"x" * 100, mtime=0), "is not an HDF5 file"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-12], "damaged or cut-off archive"),
        (gzip.compress(b"\0" * 80_000_000, mtime=0), "unpacks to more than 200 times"),
        (b"PK\x03\x04nonsense", "damaged or cut-off archive"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "is damaged"),
    ],
)
def test_files_of_other_kinds_are_refused(data: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(data)
    with pytest.raises(SnnsimFileError, match=sentence):
        read_heidelberg(path)
    assert not list(cache_folder().rglob("*.part")) + list(cache_folder().rglob("*.h5"))


@pytest.mark.parametrize("part", [0.2, 0.6, 0.99])
def test_truncated_files_are_refused(part: float, tmp_path: Path) -> None:
    data = make_file(tmp_path / "a.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: int(part * len(data))])
    with pytest.raises(SnnsimFileError, match="is damaged"):
        read_heidelberg(tmp_path / "cut.h5")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [(["../a.h5"], "unsafe name"), (["/a.h5"], "unsafe name"), (["a.h5", "b.h5"], "found 2"), (["a.txt"], "found 0")],
)
def test_unsafe_archives_are_refused(names: list[str], sentence: str, tmp_path: Path) -> None:
    plain = make_file(tmp_path / "a.h5").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in names:
            archive.writestr(name, plain)
    with pytest.raises(SnnsimFileError, match=sentence):
        read_heidelberg(tmp_path / "x.zip")


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        item = zipfile.ZipInfo("a.h5")
        item.external_attr = 0o120777 << 16
        archive.writestr(item, "/etc/passwd")
    with pytest.raises(SnnsimFileError, match="link"):
        read_heidelberg(tmp_path / "x.zip")


def test_data_in_other_files_is_refused(tmp_path: Path) -> None:
    def external(file: h5py.File) -> None:
        del file["labels"]
        file.create_dataset("labels", (9,), dtype="u2", external=[("/etc/passwd", 0, 18)])

    with pytest.raises(SnnsimFileError, match="labels: points to other files"):
        read_heidelberg(make_file(tmp_path / "a.h5", external))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SnnsimFileError, match="is not there; is the path right"):
        read_heidelberg(tmp_path / "none.h5")
    with pytest.raises(SnnsimFileError, match="is not there"):
        read_heidelberg(tmp_path)


class FullDisk:
    """A stream that takes some bytes and then has no space left."""

    def __init__(self, stream: Any, room: int) -> None:
        self.stream, self.room = stream, room

    def write(self, data: Any) -> int:
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.stream.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@pytest.mark.parametrize("room", [10, 64, 3000, 25000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file(tmp_path / "a.h5")

    def full(name: Any, mode: str = "r", **more: Any) -> Any:
        stream = open(name, mode, **more)  # noqa: SIM115
        return FullDisk(stream, room) if "w" in mode else stream

    monkeypatch.setattr(cache, "open", full, raising=False)
    with pytest.raises(SnnsimFileError, match=r"No space left on device.*SNNSIM_CACHE"):
        read_heidelberg(path, trusted=True)
    assert not list((cache_folder() / "events").iterdir())
    monkeypatch.undo()
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    assert len(read_heidelberg(path, trusted=True)) == 9


def test_a_full_disk_while_unpacking_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5.gz"
    path.write_bytes(gzip.compress(make_file(tmp_path / "a.h5").read_bytes()))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(heidelberg, "_copy", full)
    with pytest.raises(SnnsimFileError, match=r"could not be unpacked .No space left"):
        read_heidelberg(path)
    assert not list((cache_folder() / "unpacked").iterdir())


def test_a_failing_build_leaves_no_cache_file() -> None:
    def build(target: Path) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_events({"x": 1}, build)
    assert not list((cache_folder() / "events").iterdir())
