"""Text to speech in a process of its own: this file is run, never imported by the package.

The speech synthesiser espeak-ng is under the GPL. It is loaded here, through ctypes, and nowhere else; the process that
asks for speech only writes lines of JSON to this one and reads samples back.

Request, one line: ``{"voice": "en-us+f1", "text": "one.", "rate": 175, "pitch": 50, "range": 50}``. Answer: one line,
``{"samples": n, "rate": hertz}`` followed by n little-endian 16-bit samples, or ``{"error": sentence}``. The first
line, before any request, is ``{"ready": true, "version": ...}``.

The synthesiser keeps state from one utterance to the next (noise, flutter), so each request is answered by a fresh
copy of this process as it was after loading: the same request gets the same samples whatever came before. Where a
process cannot copy itself, it answers one request and ends, and the caller starts another.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any, BinaryIO

SYNCHRONOUS = 2
RATE, PITCH, RANGE = 1, 3, 4
CHARACTERS_UTF8 = 1
SEED = 1
LONGEST_NAME = 140


def load() -> tuple[Any, int, str, str]:
    """Load and start the synthesiser; return it, its sampling rate, its version and its folder of data."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Info.restype = ctypes.c_char_p
    data = _short(str(espeakng_loader.get_data_path()))
    rate = int(library.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), 0))
    if rate <= 0:
        raise OSError("espeak-ng did not start")
    return library, rate, library.espeak_Info(None).decode(), data


def _short(folder: str) -> str:
    """Return a short name of the folder of data: the synthesiser cuts names after 160 characters."""
    if len(folder.encode()) < LONGEST_NAME or os.name != "posix":
        return folder
    import atexit
    import shutil
    import tempfile

    place = tempfile.mkdtemp(prefix="speech-", dir="/tmp")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    link = os.path.join(place, "espeak-ng-data")
    os.symlink(folder, link)
    return link


def speak(library: Any, data: str, request: dict[str, Any]) -> bytes:
    """Return the samples of one request, 16 bits each."""
    language, _, variant = request["voice"].partition("+")
    if variant and not os.path.isfile(os.path.join(data, "voices", "!v", variant)):
        raise ValueError(f"espeak-ng has no variant {variant}")
    parts: list[bytes] = []
    callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

    def collect(samples: int | None, n: int, _events: int | None) -> int:
        if samples and n > 0:
            parts.append(ctypes.string_at(samples, 2 * n))
        return 0

    callback = callback_type(collect)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {language}")
    for parameter, name in ((RATE, "rate"), (PITCH, "pitch"), (RANGE, "range")):
        library.espeak_SetParameter(parameter, int(request[name]), 0)
    library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))  # breath is noise, by default seeded with the time of day
    if os.name == "posix":
        ctypes.CDLL(None).srand(SEED)
    text = request["text"].encode() + b"\0"
    size, zero = ctypes.c_size_t(len(text)), ctypes.c_uint(0)
    if library.espeak_Synth(text, size, zero, 1, zero, ctypes.c_uint(CHARACTERS_UTF8), None, None) != 0:
        raise ValueError("espeak-ng refused the text")
    library.espeak_Synchronize()
    sound = b"".join(parts)
    if sys.byteorder == "big":
        import array

        swapped = array.array("h", sound)
        swapped.byteswap()
        sound = swapped.tobytes()
    return sound


def respond(out: BinaryIO, rate: int, library: Any, data: str, request: dict[str, Any]) -> None:
    """Write the answer to one request."""
    try:
        sound = speak(library, data, request)
        head: dict[str, Any] = {"samples": len(sound) // 2, "rate": rate}
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        sound, head = b"", {"error": str(error)}
    out.write(json.dumps(head).encode() + b"\n" + sound)
    out.flush()


def main() -> None:
    """Answer requests until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints must not mix with the answers
    library, rate, version, data = load()
    out.write(json.dumps({"ready": True, "version": version}).encode() + b"\n")
    out.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if not hasattr(os, "fork"):
            respond(out, rate, library, data, request)
            return
        copy = os.fork()
        if copy == 0:
            try:
                respond(out, rate, library, data, request)
            finally:
                os._exit(0)
        _, status = os.waitpid(copy, 0)
        if status != 0:
            return


if __name__ == "__main__":
    main()
