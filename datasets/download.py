"""Downloads of published data sets: https only, checked against published checksums, resumable, atomic.

What is known in advance differs. Google publishes size and SHA-256 of Speech Commands through its own libraries. The
authors of SHD and SSC publish MD5 sums and nothing else: they are checked, and the SHA-256 of the first download
is written beside the files (``SHA256SUMS``) and checked from then on.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from snnsim.errors import InputError, SnnsimFileError
from snnsim.files import sync_folder, write_text

__all__ = ["CATALOGUE", "Published", "Remote", "download", "fetch_dataset", "unpack_tar"]

Progress = Callable[[str, int, int | None], None]
TIMEOUT = 60.0
LARGEST_DOWNLOAD = 20 << 30
LARGEST_UNPACKED = 40 << 30


@dataclass(frozen=True)
class Remote:
    """One file to download.

    Attributes:
        name: Name of the file.
        urls: Places that serve it, tried in order.
        md5: Published MD5, or None.
        sha256: Published SHA-256, or None.
        size: Published size in bytes, or None.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Contents:
    """What an archive has to hold, where its own bytes are not published: an archive may be packed anew, files are not.

    Attributes:
        suffix: Ending of the names of the files that count; others are left alone.
        count: How many.
        sha256: SHA-256 of the lines ``name sha256``, one a file, sorted by name.
    """

    suffix: str
    count: int
    sha256: str


@dataclass(frozen=True)
class Published:
    """A data set that can be downloaded.

    Attributes:
        files: Its files.
        about: One line: what it is, and its licence.
        page: Where a person finds it.
        unpack: Whether the one archive is unpacked into the folder.
        contents: What it has to hold, or None where the archive's own digest is published.
    """

    files: tuple[Remote, ...]
    about: str
    page: str
    unpack: bool = False
    contents: Contents | None = None


_FSDD = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"


def _heidelberg(name: str, md5: str) -> Remote:
    hosts = ("https://zenkelab.org/datasets/", "https://compneuro.net/datasets/")
    return Remote(name, tuple(host + name for host in hosts), md5=md5)


CATALOGUE: dict[str, Published] = {
    "shd": Published(
        (
            _heidelberg("shd_train.h5.zip", "f3252aeb598ac776c1b526422d90eecb"),
            _heidelberg("shd_test.h5.zip", "1503a5064faa34311c398fb0a1ed0a6f"),
        ),
        "Spiking Heidelberg Digits: 20 classes, 700 channels, 8156 + 2264 samples (CC BY 4.0)",
        "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
    ),
    "ssc": Published(
        (
            _heidelberg("ssc_train.h5.zip", "d102be95e7144fcc0553d1f45ba94170"),
            _heidelberg("ssc_valid.h5.zip", "b4eee3516a4a90dd0c71a6ac23a8ae43"),
            _heidelberg("ssc_test.h5.zip", "a35ff1e9cffdd02a20eb850c17c37748"),
        ),
        "Spiking Speech Commands: 35 classes, 700 channels, 75466 + 9981 + 20382 samples (CC BY 4.0)",
        "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
    ),
    "gsc": Published(
        (
            Remote(
                "speech_commands_v0.02.tar.gz",
                (
                    "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
                    "https://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
                ),
                sha256="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
                size=2428923189,
            ),
        ),
        "Google Speech Commands 0.02: 35 words, 105829 clips of sound (CC BY 4.0)",
        "https://arxiv.org/abs/1804.03209",
        unpack=True,
    ),
    "fsdd": Published(
        (
            Remote(
                f"fsdd-{_FSDD[:7]}.tar.gz",
                (
                    f"https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/tar.gz/{_FSDD}",
                    f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{_FSDD}.tar.gz",
                ),
            ),
        ),
        "Free Spoken Digit Dataset: 10 digits, 6 speakers, 3000 clips of sound at 8 kHz (CC BY-SA 4.0)",
        "https://github.com/Jakobovski/free-spoken-digit-dataset",
        unpack=True,
        contents=Contents(".wav", 3000, "dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f"),
    ),
}


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch_dataset(name: str, folder: str | Path, progress: Progress | None = None) -> list[Path]:
    """Download a data set into a folder; files that are there and right are kept.

    Args:
        name: Key of :data:`CATALOGUE`.
        folder: Where to put it; made if missing.
        progress: Called with file name, bytes so far and bytes in all (None if unknown).

    Returns:
        The files, or the folder that was unpacked.

    Raises:
        InputError: Unknown name.
        SnnsimFileError: No network, a wrong checksum, or a full disk; the sentence says where to put the file by hand.
    """
    if name not in CATALOGUE:
        raise InputError(f"data set {name!r} cannot be downloaded; known: {', '.join(CATALOGUE)}")
    published = CATALOGUE[name]
    folder = Path(folder)
    pin = published.contents is None
    files = [download(remote, folder, page=published.page, progress=progress, pin=pin) for remote in published.files]
    if published.unpack:
        target = folder / published.files[0].name.removesuffix(".tar.gz")
        if not target.is_dir():
            try:
                unpack_tar(files[0], target, published.contents)
            except _WrongContentsError:
                files[0].unlink(missing_ok=True)  # so that getting it again gets it anew
                raise
        return [target]
    return files


def download(
    remote: Remote, folder: Path, *, page: str = "", progress: Progress | None = None, pin: bool = True
) -> Path:
    """Download one file, going on where an earlier attempt stopped; see :func:`fetch_dataset`.

    Args:
        remote: What to download.
        folder: Where to.
        page: Where a person finds it.
        progress: Told how far it is.
        pin: Keep the SHA-256 of a file that has no published one, and ask for the same from then on.
    """
    target = folder / remote.name
    pinned = _pinned(folder).get(remote.name)
    if target.exists():
        _check(target, remote, pinned, keep=True)
        return target
    part = folder / f"{remote.name}.part"
    problems = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for url in remote.urls:
            try:
                _transfer(url, part, remote, progress)
                _check(part, remote, pinned)
                break
            except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                reason = getattr(error, "reason", None) or error
                problems.append(f"{url.split('/')[2]}: {reason}")
            except SnnsimFileError as error:
                problems.append(f"{url.split('/')[2]}: {error.reason}")
        else:
            raise SnnsimFileError(
                target,
                "",
                f"could not be downloaded ({'; '.join(problems)}); run the command again to go on, or get "
                f"{remote.name} from {page or remote.urls[0]} and put it into {folder}",
            )
        os.replace(part, target)
        sync_folder(folder)
    except OSError as error:
        if isinstance(error, SnnsimFileError):
            raise
        reason = error.strerror or str(error)
        raise SnnsimFileError(
            target, "", f"could not be written ({reason}); free space and run again to go on"
        ) from error
    if remote.sha256 is None and pin:
        _pin(folder, remote.name, _digest(target, "sha256"))
    return target


def _open(url: str, start: int) -> Any:
    if not url.startswith("https://"):
        raise urllib.error.URLError(f"{url} is not https")
    request = urllib.request.Request(url, headers={"User-Agent": "snnsim"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    return urllib.request.build_opener(_OnlyHttps).open(request, timeout=TIMEOUT)


def _transfer(url: str, part: Path, remote: Remote, progress: Progress | None) -> None:
    """Append to ``part`` until it is whole; start over where the server cannot go on."""
    start = part.stat().st_size if part.exists() else 0
    if remote.size is not None and start == remote.size:
        return
    if remote.size is not None and start > remote.size:
        part.unlink()
        start = 0
    try:
        response = _open(url, start)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        # nothing is left to send: the part is whole, or it is not a part of this file; the checksum decides
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range") or "")
        if total is None or int(total.group(1)) != start:
            part.unlink()
            raise urllib.error.URLError("the earlier attempt does not fit this file; it was removed") from error
        return
    with response:
        going_on = response.status == 206
        if going_on:
            span = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
            if span is None or int(span.group(1)) != start:
                raise urllib.error.URLError("the server sent another part than was asked for")
        else:
            start = 0
        length = response.headers.get("Content-Length")
        total_size = remote.size if remote.size is not None else (start + int(length) if length else None)
        if total_size is not None and total_size > LARGEST_DOWNLOAD:
            raise urllib.error.URLError(f"the server announces {total_size} bytes, which this file cannot have")
        done = start
        with open(part, "ab" if going_on else "wb") as out:
            while block := response.read(1 << 20):
                done += len(block)
                if done > (remote.size or LARGEST_DOWNLOAD):
                    raise urllib.error.URLError("the server sends more bytes than the file has")
                out.write(block)
                if progress is not None:
                    progress(remote.name, done, total_size)
            out.flush()
            os.fsync(out.fileno())
        if total_size is not None and done < total_size:
            raise urllib.error.URLError(f"the connection ended after {done} of {total_size} bytes")


def _check(path: Path, remote: Remote, pinned: str | None, keep: bool = False) -> None:
    """Compare size and checksums; a wrong download is deleted, a wrong file of the user is not."""
    found = path.stat().st_size
    wrong = ""
    if remote.size is not None and found != remote.size:
        wrong = f"has {found} bytes, expected {remote.size}"
    for kind, expected in (("md5", remote.md5), ("sha256", remote.sha256 or pinned)):
        if not wrong and expected is not None and _digest(path, kind) != expected:
            wrong = f"does not have the published {kind} {expected}"
    if wrong:
        if keep:
            raise SnnsimFileError(path, "", f"{wrong}; remove it and run the command again")
        path.unlink()
        raise SnnsimFileError(path, "", wrong)


def _digest(path: Path, kind: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _pinned(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = [line.split() for line in lines]
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2 and len(pair[0]) == 64}


def _pin(folder: Path, name: str, digest: str) -> None:
    known = {**_pinned(folder), name: digest}
    write_text(folder / "SHA256SUMS", "".join(f"{value}  {key}\n" for key, value in sorted(known.items())))


class _WrongContentsError(SnnsimFileError):
    """An archive does not hold what it should."""


def _check_contents(archive: Path, folder: Path, contents: Contents) -> None:
    found = sorted((path.name, _digest(path, "sha256")) for path in folder.rglob(f"*{contents.suffix}"))
    text = "".join(f"{name} {digest}\n" for name, digest in found)
    if len(found) != contents.count or hashlib.sha256(text.encode()).hexdigest() != contents.sha256:
        raise _WrongContentsError(
            archive,
            "",
            f"does not hold the {contents.count} files that are expected ({len(found)} found); get it again",
        )


def unpack_tar(archive: Path, target: Path, contents: Contents | None = None) -> None:
    """Unpack a ``.tar.gz`` of plain files into a new folder: into a temporary one first, checked, then renamed.

    Args:
        archive: File.
        target: Folder to make.
        contents: What it has to hold, or None.

    Raises:
        SnnsimFileError: The archive is damaged, holds links, devices or names that leave the folder, or is too large.
    """
    import shutil
    import tempfile

    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        total = 0
        with tarfile.open(archive, "r:gz") as stream:
            for item in stream:
                if not (item.isfile() or item.isdir()):
                    raise SnnsimFileError(archive, item.name, "is a link or device; the archive is refused")
                total += item.size
                if total > LARGEST_UNPACKED:
                    raise SnnsimFileError(archive, "", "unpacks to more than 40 GiB; it is refused")
                stream.extract(item, temporary, filter="data")
        if contents is not None:
            _check_contents(archive, temporary, contents)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except (tarfile.TarError, EOFError) as error:
        raise SnnsimFileError(archive, "", f"is damaged or unsafe ({error}); get it again") from error
    except OSError as error:
        if isinstance(error, SnnsimFileError):
            raise
        raise SnnsimFileError(target, "", f"could not be written ({error.strerror or error}); free space") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
