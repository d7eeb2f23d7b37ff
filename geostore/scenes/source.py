"""A path that may hold scenes, seen as named members: a file, a directory or an archive."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Self, TypeVar

from geostore.errors import (
    InternalError,
    InvalidInputError,
    NotFoundError,
    UnreadableSourceError,
)
from geostore.raster import RasterBand, RasterFile
from geostore.scenes.archive import (
    COPY_BYTES,
    MEMBERS_MAX,
    Container,
    TarArchive,
    ZipArchive,
    archive_kind,
    local_path,
    storage_errors,
    temporary_file,
)
from geostore.scenes.spill import (
    IMAGE_MAGIC,
    LinkedPair,
    Spill,
    check_spill,
    spill_candidates,
    spill_of,
)

__all__ = ["Content", "Source", "check_path"]

_T = TypeVar("_T")

_VIRTUAL = re.compile(r"^/+vsi", re.IGNORECASE)

UNPACKED_KEPT_BYTES_MAX = 1 << 28
"""Unpacked members kept between fingerprint and first read; beyond it they are unpacked
again when their pixels are wanted. Bounds what $TMPDIR holds before a band is read."""


def check_path(path: str | os.PathLike[str]) -> str:
    """`path` as text, if it can be a local path.

    Raises:
        InvalidInputError: empty, a URL, one of GDAL's virtual paths, or with control
            characters.
    """
    text = os.fspath(path)
    if not text or any(ord(character) < 32 for character in text):
        raise InvalidInputError(
            f"path {text[:200]!r}: expected a local path without control characters"
        )
    absolute = os.path.abspath(text)  # noqa: PTH100 - as GDAL will see it, links unresolved
    if "://" in text or _VIRTUAL.match(text) or _VIRTUAL.match(absolute):
        raise InvalidInputError(
            f"path {text[:200]!r}: expected a local file, directory or archive; geostore does"
            " not open URLs other than https://, http:// and s3://, nor GDAL's virtual file systems"
        )
    return text


class _File:
    """A plain file: its own only member."""

    def __init__(self, path: Path, shown: str) -> None:
        self._path = path
        self._shown = shown
        self._names = {path.name}

    def admit(self, name: str) -> bool:
        """Takes the file of that name beside it for a member too; False where there is none."""
        if (self._path.parent / name).is_file():
            self._names.add(name)
        return name in self._names

    def sizes(self) -> dict[str, int]:
        folder = self._path.parent
        return {name: (folder / name).stat().st_size for name in sorted(self._names)}

    def stream(self, member: str) -> BinaryIO:
        return _open(self._path.parent / member, self._shown, member)

    def direct(self, member: str) -> str | None:
        return str(self._path.parent / member)

    def close(self) -> None:
        return


class _Directory:
    """A directory: its files at any depth, hidden ones and links to directories left out."""

    def __init__(self, path: Path, shown: str) -> None:
        self._path = path
        self._shown = shown

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, folders, files in os.walk(self._path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in files:
                path = Path(folder, name)
                if not name.startswith(".") and path.is_file():
                    found[path.relative_to(self._path).as_posix()] = path.stat().st_size
            if len(found) > MEMBERS_MAX:
                raise UnreadableSourceError(
                    f"{self._shown}: more than {MEMBERS_MAX} files; expected one product"
                )
        return dict(sorted(found.items()))

    def stream(self, member: str) -> BinaryIO:
        return _open(self._path / member, self._shown, member)

    def direct(self, member: str) -> str | None:
        return str(self._path / member)

    def close(self) -> None:
        return


def _open(path: Path, shown: str, member: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UnreadableSourceError(f"{shown}: {member}: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a source is made of that is not simply a path of the caller's.

    It was fetched, or is gathered from several places.
    """

    shown: str
    """How messages, results and records name it."""
    local: Path
    """The file; of a folder only its name means something."""
    members: Container | None = None
    """A folder's files. One whose size is not known yet has -1; `direct` brings it here."""
    member_shown: Callable[[str], str] | None = None
    """How messages name a member, where not by `shown` and its own name."""
    on_close: Callable[[], None] | None = None
    """Called once, when the last band is closed."""


class Source:
    """A path that may hold scenes, whatever way it is packed. Thread-safe.

    Members are named by their path relative to the source, with `/`; a plain file has one
    member, its own name. Bands made with `band` keep what they need open: a reader makes
    them, hands them on in its scenes and closes nothing.

    Raises:
        InvalidInputError: `path` is a URL or one of GDAL's virtual paths.
        NotFoundError: nothing is there.
        UnreadableSourceError: it may not be read, or is a damaged or hostile archive.
    """

    def __init__(self, path: str | os.PathLike[str] | Content) -> None:
        self._content = path if isinstance(path, Content) else None
        self.path = path.shown if isinstance(path, Content) else check_path(path)
        """As the caller gave it."""
        local = path.local if isinstance(path, Content) else self.path
        self.local = Path(os.path.abspath(local))  # noqa: PTH100 - links stay as given
        is_gathered = self._content is not None and self._content.members is not None
        if not is_gathered and not self.local.exists():
            raise NotFoundError(f"{self.path}: no such file or directory")
        self.is_dir = is_gathered or self.local.is_dir()
        self._lock = threading.RLock()
        self._holds = 1
        self._sizes: dict[str, int] | None = None
        self._files: dict[str, RasterFile] = {}
        self._bands: list[RasterBand] = []
        self._local_files: list[LocalFile] = []
        self._hashes: dict[str, str] = {}
        self._spills: dict[str, str] = {}
        self._kept_bytes = 0
        try:
            self._container = self._open_container()
        except OSError as error:
            raise UnreadableSourceError(f"{self.path}: {error.strerror or error}") from error

    def _open_container(self) -> Container:
        self.is_archive = False
        if self._content is not None and self._content.members is not None:
            return self._content.members
        if self.is_dir:
            return _Directory(self.local, self.path)
        if not self.local.is_file():
            raise UnreadableSourceError(f"{self.path}: neither a file nor a directory")
        kind = archive_kind(self.local)
        self.is_archive = kind is not None
        if kind == "zip":
            return ZipArchive(self.local, self.path)
        if kind is not None:
            return TarArchive(self.local, self.path, kind)
        return _File(self.local, self.path)

    def names(self) -> list[str]:
        """Every member, sorted. Walks a directory whole: `has` is cheaper there."""
        return list(self._member_sizes())

    def root_names(self) -> list[str]:
        """Files directly in a directory, sorted; every member of a file or archive."""
        if not self.is_dir:
            return self.names()
        if self._content is not None:
            return [name for name in self.names() if "/" not in name]
        try:
            return sorted(entry.name for entry in os.scandir(self.local) if entry.is_file())
        except OSError as error:
            raise UnreadableSourceError(f"{self.path}: {error.strerror or error}") from error

    def has_folders(self) -> bool:
        """Whether a directory has others in it, hidden ones left out."""
        if not self.is_dir:
            return False
        if self._content is not None:
            return any("/" in name for name in self.names())
        try:
            return any(
                entry.is_dir() and not entry.name.startswith(".") for entry in self.local.iterdir()
            )
        except OSError as error:
            raise UnreadableSourceError(f"{self.path}: {error.strerror or error}") from error

    def _member_sizes(self) -> dict[str, int]:
        with self._lock:
            if self._sizes is None:
                self._sizes = self._container.sizes()
            return self._sizes

    def size(self, member: str) -> int:
        """Bytes of a member.

        Raises:
            UnreadableSourceError: no such member.
        """
        try:
            size = self._member_sizes()[member]
        except KeyError:
            raise UnreadableSourceError(f"{self.path}: no member {member!r}") from None
        if size < 0 and (direct := self._container.direct(member)) is not None:
            size = Path(direct).stat().st_size
            self._member_sizes()[member] = size
        return size

    def shown(self, member: str) -> str:
        """How messages name a member: the path a user would look at."""
        if self.is_archive:
            return f"{self.path}!{member}"
        if self._content is not None and self.is_dir:
            name = self._content.member_shown
            return name(member) if name else f"{self.path.rstrip('/')}/{member}"
        return str(Path(self.path) / member) if self.is_dir else self.path

    def open_bytes(self, member: str, limit: int) -> bytes:
        """All of a small member (metadata).

        Raises:
            UnreadableSourceError: no such member, larger than `limit` bytes, or damaged.
        """
        size = self.size(member)
        if size > limit:
            raise UnreadableSourceError(
                f"{self.shown(member)}: {size} bytes, expected at most {limit}"
            )
        content = b"".join(self._chunks(member))
        self._note_hash(member, hashlib.sha256(content).hexdigest())
        return content

    def head(self, member: str, size: int) -> bytes:
        """The first bytes of a member, at most `size`."""
        self.size(member)
        content = b""
        for chunk in self._chunks(member, size):
            content += chunk
            if len(content) >= size:
                break
        return content[:size]

    def _chunks(self, member: str, size: int = COPY_BYTES) -> Iterator[bytes]:
        with self._container.stream(member) as stream:
            while True:
                try:
                    data = stream.read(size)
                except OSError as error:
                    raise UnreadableSourceError(
                        f"{self.shown(member)}: {error.strerror or error}"
                    ) from error
                if not data:
                    return
                yield data

    def _note_hash(self, member: str, value: str) -> None:
        if self._hashes.setdefault(member, value) != value:
            raise UnreadableSourceError(f"{self.shown(member)}: changed while it was read")

    def band(
        self,
        member: str,
        band: int = 1,
        *,
        nodata: float | int | None = None,
        ignore_mask: bool = False,
        mask_band: RasterBand | None = None,
    ) -> RasterBand:
        """A band of a raster member; bands of one member share its file. See RasterBand."""
        made = RasterBand(
            self.raster(member),
            band,
            nodata=nodata,
            ignore_mask=ignore_mask,
            mask_band=mask_band,
        )
        with self._lock:
            self._bands.append(made)
        return made

    def raster(self, member: str) -> RasterFile:
        """The member as a raster file. It is the source's: read its header, do not close it.

        Raises:
            UnreadableSourceError: no such member, or not a raster that GDAL opens.
        """
        self.size(member)
        with self._lock:
            if member in self._files:
                return self._files[member]
            self._holds += 1  # given back by the file's on_close
        try:
            file = self._open_raster(member)
        except BaseException:
            self._release()
            raise
        with self._lock:
            kept = self._files.setdefault(member, file)
        if kept is not file:  # another thread was faster
            file.close()
        return kept

    def rasters(self, members: Iterable[str]) -> dict[str, RasterFile]:
        """Several members as raster files, opened (and unpacked) in parallel."""
        unique = sorted(set(members))
        return dict(zip(unique, _in_parallel(self.raster, unique), strict=True))

    def _open_raster(self, member: str) -> RasterFile:
        shown = self.shown(member)
        is_image = self.head(member, len(IMAGE_MAGIC)) == IMAGE_MAGIC
        direct = self._container.direct(member)
        if direct is not None and is_image and _VIRTUAL.match(direct):
            direct = None  # one inside a tar: its second file is found by a link beside it
        if direct is not None:
            if is_image and (spill := spill_of(direct, shown)) is not None:
                return self._open_pair(member, spill, direct, self._release)
            return RasterFile(direct, name=shown, on_close=self._release)
        unpacked = _Unpacked(self, member)

        def release() -> None:
            unpacked.close()
            self._release()

        try:
            if is_image and (spill := spill_of(unpacked.path(), shown)) is not None:
                return self._open_pair(member, spill, unpacked.path(), release)
            file = RasterFile(unpacked.path(), name=shown, localize=unpacked.path, on_close=release)
        except BaseException:
            unpacked.close()
            raise
        with self._lock:
            self._kept_bytes += self.size(member)
            keep = self._kept_bytes <= UNPACKED_KEPT_BYTES_MAX
        if not keep:
            unpacked.close()
        return file

    def _open_pair(
        self, member: str, spill: Spill, image: str, on_close: Callable[[], None]
    ) -> RasterFile:
        """An image, at the path `image`, whose pixels lie in a second file beside it."""
        shown = self.shown(member)
        second = self._spill_member(member, spill)
        held = ExitStack()
        with ExitStack() as opening:
            path = self._container.direct(second)
            if path is None or _VIRTUAL.match(path):
                unpacked = _Unpacked(self, second)
                opening.callback(unpacked.close)
                path = unpacked.path()
            pair = LinkedPair(image, path, spill.name, shown)
            opening.callback(pair.close)
            file = RasterFile(pair.image, name=shown, on_close=held.close, companions=[pair.spill])
            held.callback(on_close)
            held.push(opening.pop_all())
        with self._lock:
            self._spills[member] = second
        return file

    def _spill_member(self, member: str, spill: Spill) -> str:
        candidates = spill_candidates(member, spill.name)
        for candidate in candidates:
            if isinstance(self._container, _File) and self._container.admit(candidate):
                with self._lock:
                    self._sizes = None
            if candidate in self._member_sizes():
                head, size = self.head(candidate, 64), self.size(candidate)
                check_spill(spill, candidate, head, size, self.shown(member))
                return candidate
        raise UnreadableSourceError(
            f"{self.shown(member)}: its pixels lie in {' or '.join(candidates)}, which is not"
            " there; expected both files side by side"
        )

    def local_file(self, member: str) -> LocalFile:
        """The member as a file for a native library; it outlives the source until closed.

        Raises:
            UnreadableSourceError: no such member.
        """
        self.size(member)
        with self._lock:
            self._holds += 1
            made = LocalFile(self, member, self._container.direct(member), self._release)
            self._local_files.append(made)
        return made

    def copy(self, member: str, target: IO[bytes] | None) -> str:
        """Stream a member once: into `target`, where given; returns its hex SHA-256."""
        digest = hashlib.sha256()
        for data in self._chunks(member):
            digest.update(data)
            if target is not None:
                with storage_errors(self.shown(member)):
                    target.write(data)
        if target is not None:
            with storage_errors(self.shown(member)):
                target.flush()
        value = digest.hexdigest()
        self._note_hash(member, value)
        return value

    def sha256(self, member: str) -> str:
        """Hex SHA-256 of a member's content; read once."""
        self.size(member)
        known = self._hashes.get(member)
        return known if known is not None else self.copy(member, None)

    def fingerprint(self, members: Collection[str], root: str = "") -> str:
        """Hex SHA-256 over names (relative to the folder `root`) and contents of `members`.

        Files from which opened members draw their pixels (an image's `.ige`) are counted in.
        Equal for an archive and its unpacked directory. Files are hashed in parallel.
        """
        prefix = f"{root}/" if root else ""
        unique = sorted({*members, *(self._spills[one] for one in members if one in self._spills)})
        hashes = _in_parallel(self.sha256, unique)
        digest = hashlib.sha256(b"geostore source 1\n")
        for member, value in zip(unique, hashes, strict=True):
            digest.update(f"{value}  {member.removeprefix(prefix)}\n".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of the source; bands made from it stay readable until they are closed."""
        with self._lock:
            files, self._files = list(self._files.values()), {}
        for file in files:
            file.close()
        self._release()

    def discard(self) -> None:
        """Close the source and every band made from it: the reader failed."""
        for band in self._bands:
            band.close()
        for file in self._local_files:
            file.close()
        self.close()

    def _release(self) -> None:
        with self._lock:
            self._holds -= 1
            if self._holds > 0:
                return
            if self._holds < 0:
                raise InternalError(f"{self.path}: closed more often than opened")
        self._container.close()
        if self._content is not None and self._content.on_close is not None:
            self._content.on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _in_parallel(work: Callable[[str], _T], members: list[str]) -> list[_T]:
    """`work` of each member, in order; hashing and inflating leave Python's lock."""
    workers = min(4, os.cpu_count() or 1, len(members))
    if workers < 2:
        return [work(member) for member in members]
    with ThreadPoolExecutor(workers, thread_name_prefix="geostore-source") as pool:
        return list(pool.map(work, members))


class LocalFile:
    """A member as a file that can be opened by its path, until it is closed."""

    def __init__(
        self, source: Source, member: str, direct: str | None, on_close: Callable[[], None]
    ) -> None:
        self._direct = direct
        self._unpacked = _Unpacked(source, member)
        self._on_close: Callable[[], None] | None = on_close

    def path(self) -> str:
        """Where this process can open it; an archive's member is unpacked at the first call."""
        return self._unpacked.path() if self._direct is None else self._direct

    def rest(self) -> None:
        """Give back the room that an unpacked member takes; `path` unpacks it again."""
        self._unpacked.close()

    def close(self) -> None:
        """Let go of it. Calling twice is harmless."""
        on_close, self._on_close = self._on_close, None
        self._unpacked.close()
        if on_close is not None:
            on_close()


class _Unpacked:
    """A member's bytes in an unlinked temporary file, there only while it is wanted."""

    def __init__(self, source: Source, member: str) -> None:
        self._source = source
        self._member = member
        self._file: IO[bytes] | None = None

    def path(self) -> str:
        """A path to the bytes, which are unpacked now unless they are there already."""
        if self._file is None:
            with storage_errors(self._source.shown(self._member)):
                file = temporary_file()
            try:
                self._source.copy(self._member, file)
            except BaseException:
                file.close()
                raise
            self._file = file
        return local_path(self._file)

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()
