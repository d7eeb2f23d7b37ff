"""One object from a server into a file: pieces side by side, resumed where they broke off.

The journal beside the unfinished file names each piece that is there, with its CRC-32: what a
power failure left as zeros is found and fetched again. Pieces belong to one state of the object
(its ETag, else its time, and its size); where the server cannot tell states apart nothing is
resumed.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from geostore.errors import StorageFullError, UnavailableError
from geostore.scenes.remote_store import ChangedError, RemoteStore, Validators
from geostore.scenes.remote_url import RemoteUrl

__all__ = ["PIECE_BYTES", "Download", "GivenUpError", "disk_errors", "fetch_whole"]

PIECE_BYTES = 2 << 20
"""A request: large enough that its latency counts little, small enough for a slow line."""
PIECES_ASKED_MAX = 4
"""Of one object, asked for at once."""
WHOLE_TRIES_MAX = 3
JOURNAL_BYTES_MAX = 1 << 22


class GivenUpError(UnavailableError):
    """Nobody waits for the object any more."""


@contextmanager
def disk_errors(shown: str, directory: Path) -> Iterator[None]:
    """Errors of writing below the cache's directory, told apart from errors of the source.

    Raises:
        StorageFullError: there is no room, or no writing.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "make room there, or" if full else "expected a directory to write in:"
        raise StorageFullError(
            f"{shown}: cannot write to the cache {directory}: {error.strerror or error};"
            f" {hint} name another with --cache"
        ) from error


@dataclass(kw_only=True)
class Download:
    """An object on its way into `target`, by way of `<target>.part`. Used by one thread.

    Args:
        of: the object's state as first seen; pieces of another are refused.
        first: its first bytes, which came with that.
        executor: runs the requests.
        is_wanted: asked before every request; False ends in `GivenUpError`.
    """

    store: RemoteStore
    url: RemoteUrl
    of: Validators
    first: bytes
    target: Path
    executor: Executor
    is_wanted: Callable[[], bool]
    piece_bytes: int = PIECE_BYTES

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def journal(self) -> Path:
        return self.target.with_name(f"{self.target.name}.journal")

    def bytes_there(self) -> int:
        """Of an earlier try, by its journal; not yet checked."""
        return sum(self._piece_size(index) for index in self._noted())

    def run(self) -> None:
        """Fetch what lacks; the object is then at `target`, durable.

        Raises:
            ChangedError: it is another by now; what was fetched is discarded.
            GeostoreError: as `RemoteStore.read`; what was fetched stays for the next time.
            StorageFullError: no room, or no writing there.
        """
        directory = self.target.parent
        with disk_errors(self.url.shown, directory):
            descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with disk_errors(self.url.shown, directory):
                there = self._verified(descriptor)
                os.ftruncate(descriptor, self.of.size)
            self._fetch(descriptor, there)
            with disk_errors(self.url.shown, directory):
                os.fsync(descriptor)
                self.part.replace(self.target)
                self.journal.unlink(missing_ok=True)
        except ChangedError:
            self.discard()
            raise
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        """Forget what was fetched."""
        self.part.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    # ------------------------------------------------------------ pieces

    @property
    def _pieces(self) -> int:
        return -(-self.of.size // self.piece_bytes)

    def _piece_size(self, index: int) -> int:
        return min(self.piece_bytes, self.of.size - index * self.piece_bytes)

    def _noted(self) -> dict[int, int]:
        """Piece to CRC-32, as an earlier try noted them for this state of the object."""
        try:
            if not self.of.can_tell or self.journal.stat().st_size > JOURNAL_BYTES_MAX:
                return {}
            head, *lines = self.journal.read_text().splitlines()
            if json.loads(head) != self._head():
                return {}
        except (OSError, ValueError):
            return {}
        found: dict[int, int] = {}
        for line in lines:
            index, _, crc = line.partition(" ")
            if index.isdecimal() and len(crc) == 8 and int(index) < self._pieces:
                try:
                    found[int(index)] = int(crc, 16)
                except ValueError:
                    continue
        return found

    def _head(self) -> dict[str, object]:
        return {"geostore download": 1, "piece_bytes": self.piece_bytes, **self.of.to_json()}

    def _verified(self, descriptor: int) -> set[int]:
        """Pieces that are there, and a journal that names just these."""
        there = {
            index: crc
            for index, crc in self._noted().items()
            if zlib.crc32(os.pread(descriptor, self._piece_size(index), index * self.piece_bytes))
            == crc
        }
        lines = [json.dumps(self._head()), *(f"{index} {crc:08x}" for index, crc in there.items())]
        self.journal.write_text("\n".join(lines) + "\n")
        return set(there)

    def _fetch(self, descriptor: int, there: set[int]) -> None:
        asked: dict[Future[int], int] = {}
        lacking = iter([index for index in range(self._pieces) if index not in there])
        with self.journal.open("a") as journal:
            try:
                while True:
                    self._ask(descriptor, lacking, asked)
                    if not asked:
                        return
                    done, _ = wait(asked, return_when=FIRST_COMPLETED)
                    for future in done:
                        index = asked.pop(future)
                        crc = future.result()
                        with disk_errors(self.url.shown, self.target.parent):
                            journal.write(f"{index} {crc:08x}\n")
                            journal.flush()
            finally:
                for future in asked:
                    future.cancel()
                wait(asked)  # none may write to the descriptor after it was closed

    def _ask(self, descriptor: int, lacking: Iterator[int], asked: dict[Future[int], int]) -> None:
        while len(asked) < PIECES_ASKED_MAX:
            index = next(lacking, None)
            if index is None:
                return
            asked[self.executor.submit(self._piece, descriptor, index)] = index

    def _piece(self, descriptor: int, index: int) -> int:
        """Fetch and write one piece; its CRC-32."""
        if not self.is_wanted():
            raise GivenUpError(f"{self.url.shown}: the download was given up")
        start, size = index * self.piece_bytes, self._piece_size(index)
        data = self.first[start : start + size]
        if len(data) < size:
            piece = self.store.read(
                self.url,
                start + len(data),
                start + size,
                e_tag=self.of.e_tag,
                is_wanted=self.is_wanted,
            )
            if piece.of != self.of:
                raise ChangedError(f"{self.url.shown}: changed while it was fetched")
            data += piece.data
        with disk_errors(self.url.shown, self.target.parent):
            written = os.pwrite(descriptor, data, start)
            if written != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return zlib.crc32(data)


def fetch_whole(
    store: RemoteStore,
    url: RemoteUrl,
    target: Path,
    *,
    admit: Callable[[int], None],
    is_wanted: Callable[[], bool],
) -> None:
    """An object of a server that sends no parts: from the start, again where it breaks off.

    `admit` is called with its size before a byte is written.

    Raises:
        GeostoreError: as `RemoteStore.stream`, after `WHOLE_TRIES_MAX` tries.
    """
    part = target.with_name(f"{target.name}.part")
    for tries_left in reversed(range(WHOLE_TRIES_MAX)):
        try:
            of, chunks = store.stream(url)
            admit(of.size)
            _write(url, of.size, chunks, part, is_wanted)
            with disk_errors(url.shown, target.parent):
                part.replace(target)
        except UnavailableError as error:
            part.unlink(missing_ok=True)
            if isinstance(error, StorageFullError | GivenUpError) or not tries_left:
                raise
        else:
            return


def _write(
    url: RemoteUrl, size: int, chunks: Iterator[bytes], part: Path, is_wanted: Callable[[], bool]
) -> None:
    with disk_errors(url.shown, part.parent):
        file = part.open("wb")
    with file:
        received = 0
        for chunk in chunks:
            if not is_wanted():
                raise GivenUpError(f"{url.shown}: the download was given up")
            received += len(chunk)
            with disk_errors(url.shown, part.parent):
                file.write(chunk)
        if received != size:
            raise UnavailableError(
                f"{url.shown}: the server sent {received} bytes of {size} that it announced"
            )
        with disk_errors(url.shown, part.parent):
            file.flush()
            os.fsync(file.fileno())
