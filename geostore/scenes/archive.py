"""Archives as read-only sets of members, checked whole before a byte is inflated.

Zip and tar files come from anywhere. Nothing is ever unpacked to a path that an archive
names: members are streamed, or copied to unlinked temporary files. Still, an archive with a
name that would escape, a link, a name twice, an encrypted member or a size that only a bomb
has is refused as a whole: one such member says enough of the rest. GDAL's own archive
handlers are not used, since two parsers of one archive can see two different things.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from geostore.errors import StorageFullError, UnreadableSourceError

__all__ = [
    "COPY_BYTES",
    "MEMBERS_MAX",
    "Container",
    "TarArchive",
    "ZipArchive",
    "archive_kind",
    "local_path",
    "storage_errors",
]

MEMBERS_MAX = 50_000
MEMBER_BYTES_MAX = 1 << 36
"""64 GiB: the largest rasters in use are a few GiB."""
TOTAL_BYTES_MAX = 1 << 38
RATIO_MAX = 200
"""Inflated to deflated size. Imagery stays below 20, its XML and GML below 100."""
RATIO_FREE_BYTES = 1 << 26
"""Below 64 MiB any ratio passes: an empty mask deflates a thousandfold and does no harm."""
DIRECTORY_BYTES_MAX = 1 << 25
"""The zip's own table of members, read into memory whole."""
COPY_BYTES = 1 << 20

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL = struct.Struct("<4s5H3L2H")
_DRIVE = re.compile(r"^[A-Za-z]:")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class Container(Protocol):
    """A set of named members: what a file, a directory or an archive looks like to readers."""

    def sizes(self) -> dict[str, int]:
        """Bytes of every regular member by name (relative, with `/`), in sorted order."""
        ...

    def stream(self, member: str) -> BinaryIO:
        """The member's bytes from the start; the caller closes it. Thread-safe."""
        ...

    def direct(self, member: str) -> str | None:
        """A GDAL path that reads the member in place at random, where there is one."""
        ...

    def close(self) -> None: ...


def archive_kind(path: Path) -> str | None:
    """`zip`, `tar`, or `gz`, `bz2`, `xz` for a compressed tar; None for anything else.

    By content, whatever the file is called.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    for kind, magic in (("gz", b"\x1f\x8b"), ("bz2", b"BZh"), ("xz", b"\xfd7zXZ\x00")):
        if head.startswith(magic):
            try:
                with _decompressor(kind, path) as inner:
                    return kind if inner.read(512)[257:262] == b"ustar" else None
            except (OSError, EOFError, lzma.LZMAError, zlib.error):
                # Damaged before its first header: only the name can say what it was.
                return kind if _is_tar_name(path) else None
    return None


def _is_tar_name(path: Path) -> bool:
    suffixes = {suffix.lower() for suffix in path.suffixes}
    return not suffixes.isdisjoint({".tar", ".tgz", ".tbz", ".tbz2", ".txz"})


def _decompressor(kind: str, path: Path) -> IO[bytes]:
    opened: dict[str, Callable[[Path], Any]] = {
        "gz": gzip.GzipFile,
        "bz2": bz2.BZ2File,
        "xz": lzma.LZMAFile,
    }
    stream: IO[bytes] = opened[kind](path)
    return stream


@contextmanager
def storage_errors(name: str) -> Iterator[None]:
    """Errors of writing temporary files, told apart from errors of the source.

    Raises:
        StorageFullError: where the system has no room, or refuses the temporary file.
    """
    try:
        yield
    except OSError as error:
        raise StorageFullError(
            f"{name}: cannot unpack to {tempfile.gettempdir()}: {error.strerror or error};"
            " set TMPDIR to a directory with room"
        ) from error


def local_path(file: IO[bytes]) -> str:
    """A path by which this process can open the temporary file `file` again.

    Where the system has /proc the file is unlinked already and vanishes with the process,
    even on `kill -9`; elsewhere it has a name until it is closed.
    """
    if Path("/proc/self/fd").is_dir():
        return f"/proc/self/fd/{file.fileno()}"
    return str(file.name)


def temporary_file() -> IO[bytes]:
    """A file in $TMPDIR that its close removes; unlinked from the start where possible."""
    if Path("/proc/self/fd").is_dir():
        return tempfile.TemporaryFile(prefix="geostore-")
    return tempfile.NamedTemporaryFile(prefix="geostore-")


def _checked_name(raw: str, archive: str) -> str:
    """A member's name as a relative path with `/`.

    Raises:
        UnreadableSourceError: it is absolute, climbs out, or cannot be a file's name.
    """
    name = raw.replace("\\", "/")
    shown = f"{archive}: member {raw[:200]!r}"
    if not name or _UNPRINTABLE.search(name) or len(name) > 4096:
        raise UnreadableSourceError(f"{shown}: expected a printable name of 1..4096 characters")
    if name.startswith("/") or _DRIVE.match(name):
        raise UnreadableSourceError(f"{shown} has an absolute path; refusing the archive")
    parts = [part for part in name.rstrip("/").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnreadableSourceError(
            f"{shown} would lie outside the archive ('..'); refusing the archive"
        )
    if not parts and name not in (".", "./"):
        raise UnreadableSourceError(f"{shown}: expected a file name")
    return "/".join(parts)


@dataclass(slots=True)
class _Totals:
    """Running checks over all members of one archive."""

    archive: str
    members: int = 0
    size: int = 0

    def add(self, member: str, size: int, packed: int | None) -> None:
        shown = f"{self.archive}: member {member!r}"
        self.members += 1
        self.size += size
        if self.members > MEMBERS_MAX:
            raise UnreadableSourceError(
                f"{self.archive}: more than {MEMBERS_MAX} members; refusing the archive"
            )
        if size > MEMBER_BYTES_MAX or self.size > TOTAL_BYTES_MAX:
            raise UnreadableSourceError(
                f"{shown} would inflate to {size} bytes ({self.size} so far); at most"
                f" {MEMBER_BYTES_MAX} a member and {TOTAL_BYTES_MAX} in all are accepted"
            )
        if packed is not None and size > RATIO_FREE_BYTES and size > RATIO_MAX * packed:
            raise UnreadableSourceError(
                f"{shown} would inflate {packed} bytes to {size}, over {RATIO_MAX} times as"
                " many: this looks like a zip bomb; refusing the archive"
            )


class ZipArchive:
    """A zip file.

    Raises:
        UnreadableSourceError: truncated, damaged or hostile; names archive and member.
    """

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        self._path = path
        try:
            _check_directory_size(path, shown)
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, struct.error, ValueError, EOFError) as error:
            if isinstance(error, UnreadableSourceError):
                raise
            raise UnreadableSourceError(
                f"{shown}: damaged or truncated zip archive: {error}"
            ) from error
        except NotImplementedError as error:
            raise UnreadableSourceError(f"{shown}: zip archive: {error}") from error
        try:
            self._members = self._check_members()
        except BaseException:
            self._zip.close()
            raise

    def _check_members(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        seen: set[str] = set()
        totals = _Totals(self._shown)
        archive_bytes = self._path.stat().st_size
        end = 0
        for info in sorted(self._zip.infolist(), key=lambda info: info.header_offset):
            name = _checked_name(info.orig_filename, self._shown)
            shown = f"{self._shown}: member {name!r}"
            # Members that share bytes are how a small zip inflates without end.
            if info.header_offset < end or info.header_offset + info.compress_size > archive_bytes:
                raise UnreadableSourceError(
                    f"{shown} overlaps another or reaches past the end; refusing the archive"
                )
            end = info.header_offset + _LOCAL.size + info.compress_size
            if name in seen:
                raise UnreadableSourceError(f"{shown} is there twice; refusing the archive")
            seen.add(name)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UnreadableSourceError(
                    f"{shown} is a link or device, not a file; refusing the archive"
                )
            if info.flag_bits & 0x1:
                raise UnreadableSourceError(f"{shown} is encrypted")
            totals.add(name, info.file_size, info.compress_size)
            if not info.is_dir() and kind != stat.S_IFDIR:
                members[name] = info
        return dict(sorted(members.items()))

    def sizes(self) -> dict[str, int]:
        return {name: info.file_size for name, info in self._members.items()}

    def stream(self, member: str) -> BinaryIO:
        info = self._members[member]
        shown = f"{self._shown}: member {member!r}"
        try:
            return _Checked(self._zip.open(info), info.file_size, shown)
        except (
            zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError,
            struct.error, EOFError,
        ) as error:  # fmt: skip
            raise UnreadableSourceError(f"{shown}: {_said(error)}") from error

    def direct(self, member: str) -> str | None:
        # A stored member could be read in place, but only inflating checks its CRC: the
        # copy that a fingerprint makes anyway has been checked when it is complete.
        del member
        return None

    def close(self) -> None:
        self._zip.close()


def _said(error: Exception) -> str:
    """What an unpacker says, without the file's content that it may quote."""
    text = str(error) or "truncated"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _check_directory_size(path: Path, shown: str) -> None:
    """Refuse a table of members that would fill memory, before zipfile reads it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65557))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            return  # zipfile says what is wrong
        directory_bytes = _END.unpack_from(tail, at)[5]
        locator_at = at - _END64_LOCATOR.size
        if directory_bytes == 0xFFFFFFFF and locator_at >= 0:
            magic, _, offset, _ = _END64_LOCATOR.unpack_from(tail, locator_at)
            if magic == b"PK\x06\x07" and offset + _END64.size <= size:
                file.seek(offset)
                directory_bytes = _END64.unpack(file.read(_END64.size))[8]
    if directory_bytes > DIRECTORY_BYTES_MAX:
        raise UnreadableSourceError(
            f"{shown}: a table of members of {directory_bytes} bytes, at most"
            f" {DIRECTORY_BYTES_MAX} are accepted; refusing the archive"
        )


class _Checked(io.RawIOBase, BinaryIO):
    """A member's stream that ends with an error unless all its bytes came, CRC included."""

    def __init__(self, inner: IO[bytes], size: int, shown: str) -> None:
        super().__init__()
        self._inner = inner
        self._left = size
        self._shown = shown

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self._inner.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError, lzma.LZMAError, OSError) as error:
            raise UnreadableSourceError(f"{self._shown}: {_said(error)}") from error
        self._left -= len(data)
        if self._left < 0 or (self._left > 0 and not data and size != 0):
            raise UnreadableSourceError(
                f"{self._shown}: {abs(self._left)} bytes"
                f" {'more' if self._left < 0 else 'fewer'} than the archive says"
            )
        return data

    def close(self) -> None:
        self._inner.close()
        super().close()


class TarArchive:
    """A tar file; a compressed one is spooled, once, to an unlinked temporary file.

    Raises:
        UnreadableSourceError: truncated, damaged or hostile; names archive and member.
        StorageFullError: no room for the spool.
    """

    def __init__(self, path: Path, shown: str, kind: str) -> None:
        self._shown = shown
        self._lock = threading.Lock()
        self._file: IO[bytes]
        if kind == "tar":
            self._file = path.open("rb")
            self._gdal_path = str(path)
        else:
            self._file = _spool(path, shown, kind)
            self._gdal_path = local_path(self._file)
        try:
            self._members = self._check_members()
        except BaseException:
            self._file.close()
            raise

    def _check_members(self) -> dict[str, tuple[int, int]]:
        """(offset of data, size) by name."""
        size = os.fstat(self._file.fileno()).st_size
        members: dict[str, tuple[int, int]] = {}
        seen: set[str] = set()
        totals = _Totals(self._shown)
        self._file.seek(0)
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for info in tar:
                    name = _checked_name(info.name, self._shown)
                    shown = f"{self._shown}: member {name!r}"
                    if name in seen and not info.isdir():
                        raise UnreadableSourceError(f"{shown} is there twice; refusing the archive")
                    seen.add(name)
                    totals.add(name, info.size, None)
                    if info.isdir():
                        continue
                    if not info.isreg() or info.issparse():
                        raise UnreadableSourceError(
                            f"{shown} is a link, device or sparse file; refusing the archive"
                        )
                    if info.offset_data + info.size > size:
                        raise UnreadableSourceError(f"{shown} is truncated")
                    members[name] = (info.offset_data, info.size)
                end = tar.offset
        except (tarfile.TarError, EOFError, OverflowError, ValueError) as error:
            if isinstance(error, UnreadableSourceError):
                raise
            raise UnreadableSourceError(f"{self._shown}: damaged tar archive: {error}") from error
        # tarfile stops in silence at a header that it cannot read: only zeros end an archive.
        self._file.seek(end)
        if self._file.read(512).strip(b"\0"):
            raise UnreadableSourceError(
                f"{self._shown}: damaged tar archive: no valid header at byte {end}"
            )
        return dict(sorted(members.items()))

    def sizes(self) -> dict[str, int]:
        return {name: size for name, (_, size) in self._members.items()}

    def stream(self, member: str) -> BinaryIO:
        offset, size = self._members[member]
        window = _Window(self._file.fileno(), offset, size)
        return _Checked(io.BufferedReader(window), size, f"{self._shown}: member {member!r}")

    def direct(self, member: str) -> str | None:
        offset, size = self._members[member]
        return f"/vsisubfile/{offset}_{size},{self._gdal_path}"

    def close(self) -> None:
        self._file.close()


class _Window(io.RawIOBase):
    """Bytes `offset` .. `offset + size` of an open file, by pread: no shared position."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._at = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = os.pread(self._descriptor, min(len(buffer), self._end - self._at), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _spool(path: Path, shown: str, kind: str) -> IO[bytes]:
    """The tar inside a compressed tar, as an unlinked temporary file."""
    limit = min(TOTAL_BYTES_MAX, max(RATIO_FREE_BYTES, RATIO_MAX * path.stat().st_size))
    with storage_errors(shown):
        spool = temporary_file()
    try:
        total = 0
        for data in _inflated(path, shown, kind):
            total += len(data)
            _refuse_bomb(total, limit, shown)
            with storage_errors(shown):
                spool.write(data)
        with storage_errors(shown):
            spool.flush()
    except BaseException:
        spool.close()
        raise
    return spool


def _inflated(path: Path, shown: str, kind: str) -> Iterator[bytes]:
    with _decompressor(kind, path) as inner:
        while True:
            try:
                data = inner.read(COPY_BYTES)
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                raise UnreadableSourceError(
                    f"{shown}: damaged or truncated {kind} data: {error}"
                ) from error
            if not data:
                return
            yield data


def _refuse_bomb(total: int, limit: int, shown: str) -> None:
    if total > limit:
        raise UnreadableSourceError(
            f"{shown} inflates to more than {limit} bytes: this looks like a bomb;"
            " refusing the archive"
        )
