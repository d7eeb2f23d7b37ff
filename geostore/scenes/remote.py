"""Remote objects as sources: files, archives and folders of buckets, fetched when they are read.

Whole objects are fetched, not ranges of pixels: a scene is ingested once and whole, so nothing
would be saved, and what GDAL reads stays a local file with its network drivers off.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

from geostore.errors import InvalidInputError, UnreadableSourceError
from geostore.scenes.remote_cache import CACHE_BYTES_DEFAULT, Held, RemoteCache, Turn
from geostore.scenes.remote_store import Patience, RemoteStore
from geostore.scenes.remote_url import RemoteUrl
from geostore.scenes.source import Content, Source

__all__ = ["Gathered", "Remote", "default_cache"]


def default_cache(environment: Mapping[str, str]) -> Path:
    """Where fetched objects are kept unless somebody says otherwise."""
    if environment.get("GEOSTORE_CACHE"):
        return Path(environment["GEOSTORE_CACHE"]).expanduser()
    base = environment.get("XDG_CACHE_HOME")
    # The XDG specification: a relative one is to be ignored.
    folder = Path(base) if base and Path(base).is_absolute() else Path("~/.cache").expanduser()
    return folder / "geostore"


@dataclass(frozen=True, slots=True)
class Remote:
    """Opens remote objects as sources, by way of one cache. Close it when all are closed."""

    cache: RemoteCache

    @classmethod
    def of(
        cls,
        environment: Mapping[str, str],
        *,
        directory: str | os.PathLike[str] | None = None,
        bytes_max: int | None = None,
        patience: Patience | None = None,
    ) -> Self:
        """By the settings; nothing is made or asked yet.

        Args:
            environment: whence credentials and the default directory; usually `os.environ`.
            directory: of the cache.
            bytes_max: how much the cache keeps.

        Raises:
            InvalidInputError: a negative bound.
        """
        if bytes_max is not None and bytes_max < 0:
            raise InvalidInputError(f"cache-bytes {bytes_max}: expected at least 0")
        return cls(
            RemoteCache(
                directory=Path(directory) if directory else default_cache(environment),
                store=RemoteStore(environment=environment, patience=patience or Patience()),
                bytes_max=CACHE_BYTES_DEFAULT if bytes_max is None else bytes_max,
            )
        )

    def __reduce__(self) -> tuple[object, ...]:
        # To another process: its own environment, so that credentials stay where they are.
        return _reopened, (str(self.cache.directory), self.cache.bytes_max)

    def close(self) -> None:
        """Stop fetching; what scenes still read stays until they are closed."""
        self.cache.close()

    def file(self, url: RemoteUrl, turn: Turn) -> Source:
        """A file or an archive."""
        held = self.cache.fetch(url, turn)
        try:
            return Source(Content(shown=url.shown, local=held.path, on_close=held.close))
        except BaseException:
            held.close()
            raise

    def folder(self, url: RemoteUrl, members: Mapping[str, int], turn: Turn) -> Source:
        """A folder of a bucket, whose `members` (name to bytes) a listing told."""
        gathered = Gathered(
            url.shown, {name: url.child(name) for name in members}, self, turn, sizes=members
        )
        name = PurePosixPath(url.path).name or url.bucket
        return Source(Content(shown=url.shown, local=Path("/", name), members=gathered))


def _reopened(directory: str, bytes_max: int) -> Remote:
    return Remote.of(os.environ, directory=directory, bytes_max=bytes_max)


class Gathered:
    """Files of several places under names of our choice, fetched when one is first opened.

    Args:
        shown: how messages name the whole.
        places: where each is. A local one that is not there is no member.
        sizes: bytes of remote ones, where known.
    """

    def __init__(
        self,
        shown: str,
        places: Mapping[str, RemoteUrl | Path],
        remote: Remote,
        turn: Turn,
        *,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self._shown = shown
        self._places = places
        self._remote = remote
        self._turn = turn
        self._sizes = sizes or {}
        self._held: dict[str, Held] = {}
        self._locks = {name: threading.Lock() for name in places}

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, place in sorted(self._places.items()):
            if isinstance(place, RemoteUrl):
                found[name] = self._sizes.get(name, -1)
                continue
            with suppress(OSError):  # no such file, a name that is too long
                about = place.stat()
                if stat.S_ISREG(about.st_mode):
                    found[name] = about.st_size
        return found

    def direct(self, member: str) -> str:
        """Where the member is on this machine, once it is there."""
        place = self._places[member]
        if isinstance(place, Path):
            return str(place)
        with self._locks[member]:
            if member not in self._held:
                self._held[member] = self._remote.cache.fetch(place, self._turn)
            return str(self._held[member].path)

    def stream(self, member: str) -> BinaryIO:
        path = self.direct(member)
        try:
            return Path(path).open("rb")
        except OSError as error:
            raise UnreadableSourceError(
                f"{self._shown}: {member}: {error.strerror or error}"
            ) from error

    def close(self) -> None:
        held, self._held = self._held, {}
        for one in held.values():
            one.close()
