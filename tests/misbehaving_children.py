"""Child processes that fail in every way, for tests of `geostore.scenes.isolated`."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

from geostore.scenes.isolated import FRAME, MAGIC
from geostore.scenes.isolated_process import Handler, serve

ANSWERS = 4


def answer(path: str, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    what = request["do"]
    if what == "read":
        data = Path(path).read_bytes()
        return {"pid": os.getpid(), "size": len(data)}, data
    if what == "raise":
        raise ValueError("no grid in it")
    if what == "die":
        os.kill(os.getpid(), getattr(signal, request["signal"]))
    if what == "exit":
        os._exit(7)
    if what == "hang":
        threading.Event().wait()
    if what == "flood":
        return {}, bytes(request["size"])
    if what == "endless":
        while True:
            os.write(ANSWERS, b"\0" * 65536)
    if what == "garbage":
        os.write(ANSWERS, b"no frame, but long enough for one" * 4)
    if what == "bad json":
        os.write(ANSWERS, FRAME.pack(MAGIC, 1, 3, 0) + b"{]}")
    if what == "list":
        os.write(ANSWERS, FRAME.pack(MAGIC, 1, 2, 0) + b"[]")
    if what == "half":
        os.write(ANSWERS, FRAME.pack(MAGIC, 1, 2, 100) + b"{}" + bytes(10))
        os._exit(0)
    if what == "takes memory":
        return {"bytes": len(bytearray(request["size"]))}, None
    if what == "writes a file":
        Path(request["path"]).write_bytes(b"x")
    return {"pid": os.getpid(), "cwd on path": "" in __import__("sys").path}, None


def load() -> Handler:
    return answer


def load_nothing() -> Handler:
    raise ImportError("libdf.so: not there")


def main(memory_bytes_max: int) -> int:
    return serve(load, memory_bytes_max)
