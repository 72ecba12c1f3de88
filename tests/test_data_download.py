"""Downloads: resume, mirrors, checksums, atomic files; against a server on this machine."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from snnsim.datasets import download
from snnsim.datasets.download import CATALOGUE, Published, Remote, fetch_dataset, unpack_tar
from snnsim.errors import InputError, SnnsimFileError

CONTENT = bytes(range(256)) * 3000
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT; paths say how: /good, /cut (ends early), /whole (no ranges), /wrong, /more, /plain."""

    requests: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Server.requests.append((self.path, wanted))
        kind = self.path.split("/")[1]
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and kind != "whole" else 0
        content = {"wrong": b"x" * len(CONTENT), "more": CONTENT + b"more"}.get(kind, CONTENT)
        if kind == "missing":
            self.send_error(404)
            return
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start : start + 300_000] if kind == "cut" else content[start:])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Server.requests = []
    address = f"http://127.0.0.1:{server.server_address[1]}"

    def plain(url: str, start: int) -> Any:
        request = urllib.request.Request(url.replace("https://server", address))
        if start:
            request.add_header("Range", f"bytes={start}-")
        return urllib.request.urlopen(request, timeout=5)

    monkeypatch.setattr(download, "_open", plain)
    yield "https://server"
    server.shutdown()
    server.server_close()
    thread.join()


def remote(base: str, *kinds: str, **known: Any) -> Remote:
    return Remote("f.bin", tuple(f"{base}/{kind}/f.bin" for kind in kinds), **(known or {"sha256": SHA}))


def test_a_file_is_downloaded_checked_and_kept(base: str, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    path = download.download(remote(base, "good"), tmp_path / "new", progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("f.bin", len(CONTENT), len(CONTENT))
    download.download(remote(base, "good"), tmp_path / "new")
    assert len(Server.requests) == 1
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["f.bin"]


def test_an_interrupted_download_goes_on_where_it_stopped(base: str, tmp_path: Path) -> None:
    with pytest.raises(SnnsimFileError, match=r"connection ended after 300000 of 768000 bytes.*put it into"):
        download.download(remote(base, "cut"), tmp_path)
    assert (tmp_path / "f.bin.part").stat().st_size == 300_000
    assert download.download(remote(base, "good"), tmp_path).read_bytes() == CONTENT
    assert Server.requests[-1] == ("/good/f.bin", "bytes=300000-")


def test_a_server_without_ranges_starts_over(base: str, tmp_path: Path) -> None:
    (tmp_path / "f.bin.part").write_bytes(CONTENT[:1000])
    assert download.download(remote(base, "whole"), tmp_path).read_bytes() == CONTENT


def test_a_whole_part_is_only_checked(base: str, tmp_path: Path) -> None:
    (tmp_path / "f.bin.part").write_bytes(CONTENT)
    assert download.download(remote(base, "good"), tmp_path).read_bytes() == CONTENT
    (tmp_path / "f.bin").unlink()
    (tmp_path / "f.bin.part").write_bytes(CONTENT)
    known = remote(base, "good", sha256=SHA, size=len(CONTENT))
    before = len(Server.requests)
    assert download.download(known, tmp_path).read_bytes() == CONTENT
    assert len(Server.requests) == before


def test_a_part_that_does_not_fit_is_removed(base: str, tmp_path: Path) -> None:
    (tmp_path / "f.bin.part").write_bytes(b"y" * 1000)
    with pytest.raises(SnnsimFileError, match="does not have the published sha256"):
        download.download(remote(base, "good"), tmp_path)
    assert not (tmp_path / "f.bin.part").exists()
    (tmp_path / "f.bin.part").write_bytes(b"y" * (len(CONTENT) + 5))
    with pytest.raises(SnnsimFileError, match="does not fit this file"):
        download.download(remote(base, "good"), tmp_path)
    assert download.download(remote(base, "good"), tmp_path).read_bytes() == CONTENT


def test_mirrors_are_tried_in_order(base: str, tmp_path: Path) -> None:
    path = download.download(remote(base, "missing", "wrong", "good"), tmp_path)
    assert path.read_bytes() == CONTENT
    assert [kind.split("/")[1] for kind, _ in Server.requests] == ["missing", "wrong", "good"]


@pytest.mark.parametrize(
    ("kind", "known", "sentence"),
    [
        ("wrong", {"sha256": SHA}, "does not have the published sha256"),
        ("wrong", {"md5": MD5}, "does not have the published md5"),
        ("more", {"sha256": SHA, "size": len(CONTENT)}, "more bytes than the file has"),
        ("missing", {"sha256": SHA}, "Not Found"),
    ],
)
def test_wrong_downloads_leave_no_file(
    kind: str, known: dict[str, Any], sentence: str, base: str, tmp_path: Path
) -> None:
    with pytest.raises(SnnsimFileError, match=sentence):
        download.download(remote(base, kind, **known), tmp_path)
    assert not (tmp_path / "f.bin").exists()


def test_where_only_md5_is_published_the_first_sha256_is_kept(base: str, tmp_path: Path) -> None:
    only = remote(base, "good", md5=MD5)
    download.download(only, tmp_path)
    assert (tmp_path / "SHA256SUMS").read_text() == f"{SHA}  f.bin\n"
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  f.bin\n")
    with pytest.raises(SnnsimFileError, match="does not have the published sha256 0000"):
        download.download(only, tmp_path)
    assert (tmp_path / "f.bin").exists()


def test_a_file_put_there_by_hand_is_used_or_refused_and_never_removed(base: str, tmp_path: Path) -> None:
    (tmp_path / "f.bin").write_bytes(CONTENT)
    download.download(remote(base, "good"), tmp_path)
    (tmp_path / "f.bin").write_bytes(b"mine")
    with pytest.raises(SnnsimFileError, match="remove it and run the command again"):
        download.download(remote(base, "good"), tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == b"mine"


def test_without_a_network_the_sentence_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(url: str, start: int) -> Any:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(download, "_open", none)
    with pytest.raises(
        SnnsimFileError, match=r"get shd_train.h5.zip from https://zenkelab.* and put it into"
    ) as caught:
        fetch_dataset("shd", tmp_path / "shd")
    assert "compneuro.net" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_sentence_and_the_part_stays(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SnnsimFileError, match=r"No space left on device.*run again to go on"):
        download.download(remote(base, "good"), tmp_path)
    assert not (tmp_path / "f.bin").exists()


def test_only_https_is_used() -> None:
    with pytest.raises(urllib.error.URLError, match="is not https"):
        download._open("http://example.org/x", 0)
    handler = download._OnlyHttps()
    request = urllib.request.Request("https://example.org/x")
    with pytest.raises(urllib.error.URLError, match="not https"):
        handler.redirect_request(request, None, 302, "", {}, "http://example.org/x")
    for published in CATALOGUE.values():
        for item in published.files:
            assert len(item.urls) >= 2
            assert all(url.startswith("https://") for url in item.urls)
            assert item.md5 or item.sha256 or published.contents
    with pytest.raises(InputError, match="known: shd, ssc, gsc, fsdd"):
        fetch_dataset("mnist", Path("x"))


def tar(path: Path, *items: tuple[str, bytes | None]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in items:
            entry = tarfile.TarInfo(name)
            if data is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                entry.size = len(data)
            archive.addfile(entry, None if data is None else io.BytesIO(data))
    return path


def test_archives_are_unpacked_into_one_new_folder(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar(tmp_path / "s.tar.gz", ("./yes/a.wav", b"1"), ("./validation_list.txt", b"2"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    item = Remote("s.tar.gz", (f"{base}/good/s", f"{base}/good/s"), sha256=digest)
    monkeypatch.setitem(CATALOGUE, "tiny", Published((item,), "", "", unpack=True))
    assert fetch_dataset("tiny", tmp_path) == [tmp_path / "s"]
    assert (tmp_path / "s" / "yes" / "a.wav").read_bytes() == b"1"
    assert fetch_dataset("tiny", tmp_path) == [tmp_path / "s"]


def test_what_an_archive_holds_is_checked_however_it_is_packed(tmp_path: Path) -> None:
    lines = "".join(f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in (("0.wav", b"1"), ("1.wav", b"2")))
    wanted = download.Contents(".wav", 2, hashlib.sha256(lines.encode()).hexdigest())
    archive = tar(tmp_path / "a.tar.gz", ("top/1.wav", b"2"), ("top/README", b"x"), ("top/0.wav", b"1"))
    unpack_tar(archive, tmp_path / "a", wanted)
    assert (tmp_path / "a" / "top" / "0.wav").read_bytes() == b"1"
    for bad in ((("0.wav", b"1"),), (("0.wav", b"1"), ("1.wav", b"3"))):
        with pytest.raises(SnnsimFileError, match="does not hold the 2 files that are expected"):
            unpack_tar(tar(tmp_path / "b.tar.gz", *bad), tmp_path / "b", wanted)
        assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ((("a", b"1"), ("link", None)), "link: is a link or device"),
        ((("../out", b"1"),), "is damaged or unsafe"),
    ],
)
def test_unsafe_archives_leave_nothing(items: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SnnsimFileError, match=sentence):
        unpack_tar(tar(tmp_path / "s.tar.gz", *items), tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["s.tar.gz"]
    (tmp_path / "s.tar.gz").write_bytes((tmp_path / "s.tar.gz").read_bytes()[:-20])
    with pytest.raises(SnnsimFileError, match=r"damaged|link"):
        unpack_tar(tmp_path / "s.tar.gz", tmp_path / "s")
