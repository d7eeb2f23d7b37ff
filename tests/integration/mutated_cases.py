"""One case: which source is damaged, how, and with which flags it is ingested."""

from __future__ import annotations

import functools
import io
import os
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.integration.mutated_originals import Original, Prepared, made_here, of_tree, prepare
from tests.integration.mutations import changes_for

__all__ = ["Case", "all_originals", "draw"]

SUFFIXES = (".tif", ".jp2", ".img", ".hdf", ".nc", ".zip", ".tar", ".tar.gz", ".SAFE", ".txt",
            ".json", ".xml", ".asc", ".png", "")  # fmt: skip
READ = (".tif", ".tiff", ".jp2", ".img", ".hdf", ".nc", ".zip", ".tar", ".gz", ".bz2", ".xz")
"""Kinds that readers open; others are drawn seldom."""
SMALL_BYTES = 400_000
PACKED_MEMBER_BYTES_MAX = 4 << 20


def all_originals(tree: Path | None, work: Path) -> list[Original]:
    """What is damaged: of the tree where there is one, and what is made here."""
    return [*made_here(work), *(of_tree(tree) if tree is not None else [])]


@dataclass(frozen=True)
class Case:
    """What follows from a seed and a number."""

    number: int
    original: Original
    how: str
    state: tuple[Any, ...]
    """Of the random numbers that the damage takes: the same whenever it is made."""
    is_walked: bool
    """Ingested by naming the folder that it lies in, not the source itself."""
    fits: bool
    """With the resolution and length at which its tiles fit; else with defaults."""

    def __str__(self) -> str:
        walked = ", met in a folder" if self.is_walked else ""
        return f"{self.original.name}: {self.how}{walked}"

    @property
    def flags(self) -> dict[str, Any]:
        # Most with fewer tiles than the default's 50,000: that many take half a minute to plan.
        flags: dict[str, Any] = {} if self.number % 10 == 0 else {"max_tiles": 5000}
        if self.fits and self._prepared is not None and self._prepared.resolution_m is not None:
            flags |= {"resolution": self._prepared.resolution_m, "length": self._prepared.length}
        return flags

    @property
    def _prepared(self) -> Prepared | None:
        return _PREPARED.get(self.original.name)

    def make(self, place: Path, work: Path) -> Path:
        """Write the damaged copy into the folder `place`; the path to ingest."""
        if self.original.name not in _PREPARED:
            _PREPARED[self.original.name] = prepare(self.original, work)
        ready = _PREPARED[self.original.name].path
        target = place / ready.name
        random = Random()
        random.setstate(self.state)
        WAYS[self.how](random, ready, target)
        made = sorted(place.iterdir())
        if len(made) == 1:  # a wrong suffix is another name
            target = made[0]
        return place if self.is_walked else target


_PREPARED: dict[str, Prepared] = {}


def draw(seed: int, number: int, originals: Sequence[Original]) -> Case:
    """The case of that number. Depends on the seed, the number and what there is to damage."""
    random = Random(f"{seed} {number}")
    kinds, weights = _kinds(tuple(originals))
    kind = random.choices(list(kinds), weights)[0]
    some = kinds[kind]
    sizes = [one.path.stat().st_size if one.path.is_file() else SMALL_BYTES for one in some]
    original = random.choices(some, [1 / (SMALL_BYTES + size) for size in sizes])[0]
    if original.path.is_dir():
        ways = ["member changed"] * 5 + list(OF_FOLDERS)
    elif original.path.suffix in (".zip", ".tar", ".gz", ".bz2", ".xz"):
        ways = ["bytes changed"] * 3 + ["packed member changed"] * 5 + list(OF_ARCHIVES) + ["moved"]
    else:
        ways = ["bytes changed"] * 12 + list(OF_FILES)
    how = random.choice(ways)
    is_walked, fits = random.random() < 0.25, random.random() < 0.8
    return Case(number, original, how, random.getstate(), is_walked, fits)


@functools.lru_cache(maxsize=1)
def _kinds(originals: tuple[Original, ...]) -> tuple[dict[str, list[Original]], list[float]]:
    kinds: dict[str, list[Original]] = {}
    for one in originals:
        kinds.setdefault(one.kind, []).append(one)
    weights = []
    for kind in kinds:
        if kind.endswith("folder"):
            weights.append(3.0)
        else:
            weights.append(2.0 if kind.endswith((*READ, "safe.zip")) else 0.3)
    return kinds, weights


def changed(random: Random, data: bytes) -> bytes:
    """The bytes with one change of those that fit them; sometimes two."""
    for _ in range(random.choice((1, 1, 1, 2))):
        change = random.choice(changes_for(data))
        try:
            data = change(random, data)
        except (struct.error, IndexError, ValueError):  # the change before left no such header
            data += b"\0"
    return data


# ---------------------------------------------------------------- a file


def bytes_changed(random: Random, source: Path, target: Path) -> None:
    target.write_bytes(changed(random, source.read_bytes()))


def wrong_suffix(random: Random, source: Path, target: Path) -> None:
    stem = target.name.split(".")[0]
    data = source.read_bytes()
    target.with_name(stem + random.choice(SUFFIXES)).write_bytes(data)


def folder_for_file(random: Random, source: Path, target: Path) -> None:
    """A directory of the file's name, empty or with the file or another in it."""
    target.mkdir()
    if random.random() < 0.7:
        name = random.choice((source.name, "x.tif", "MTD_MSIL1C.xml", "x_MTL.txt"))
        (target / name).write_bytes(source.read_bytes())


def link_to_nothing(random: Random, source: Path, target: Path) -> None:
    target.symlink_to(random.choice(("nowhere", target.name, "/dev/null", "/proc/self/mem")))
    if not target.exists():  # what is not there at all is refused before anything else
        other = target.with_name("other.tif")
        other.write_bytes(source.read_bytes()[:1000])


def pipe_for_file(random: Random, source: Path, target: Path) -> None:
    os.mkfifo(target)


OF_FILES: dict[str, Callable[[Random, Path, Path], None]] = {
    "wrong suffix": wrong_suffix,
    "a folder for a file": folder_for_file,
    "a pipe for a file": pipe_for_file,
}


# ---------------------------------------------------------------- a folder


def _copy_folder(source: Path, target: Path) -> list[Path]:
    """The folder with links to its files; the files, as paths in the copy."""
    files = []
    for one in sorted(source.rglob("*")):
        if one.is_file():
            place = target / one.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(one.resolve())
            files.append(place)
    return files


def _replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def member_changed(random: Random, source: Path, target: Path) -> None:
    """Metadata as often as pixels, however many files of either there are."""
    files = _copy_folder(source, target)
    texts = [one for one in files if one.suffix.lower() in (".xml", ".txt", ".json", ".safe")]
    rest = [one for one in files if one not in texts]
    pool = texts if texts and (not rest or random.random() < 0.5) else rest
    chosen = random.choice(pool or files)
    _replace(chosen, changed(random, chosen.read_bytes()))


def members_swapped(random: Random, source: Path, target: Path) -> None:
    one, other = random.choices(_copy_folder(source, target), k=2)
    first, second = one.read_bytes(), other.read_bytes()
    _replace(one, second)
    _replace(other, first)


def members_left_out(random: Random, source: Path, target: Path) -> None:
    files = _copy_folder(source, target)
    for one in random.sample(files, random.choice((1, 1, len(files) // 2, len(files)))):
        one.unlink()


def member_of_another_kind(random: Random, source: Path, target: Path) -> None:
    """A directory, a pipe, a dead link or nothing in a member's place."""
    chosen = random.choice(_copy_folder(source, target))
    chosen.unlink()
    how = random.randrange(4)
    if how == 0:
        chosen.mkdir()
    elif how == 1:
        os.mkfifo(chosen)
    elif how == 2:
        chosen.symlink_to("nowhere")
    else:
        chosen.write_bytes(b"")


def member_twice(random: Random, source: Path, target: Path) -> None:
    """A copy of a member in another folder, or under another name."""
    chosen = random.choice(_copy_folder(source, target))
    other = random.choice((chosen.with_name("copy_" + chosen.name), target / "x" / chosen.name))
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(chosen.read_bytes())


def file_for_folder(random: Random, source: Path, target: Path) -> None:
    target.write_bytes(random.choice((b"", b"x", b"II*\0" + bytes(100))))


def folder_in_zip(random: Random, source: Path, target: Path) -> None:
    """The folder packed, with one member changed."""
    with zipfile.ZipFile(target.with_name(target.name + ".zip"), "w") as archive:
        files = [one for one in sorted(source.rglob("*")) if one.is_file()]
        chosen = random.choice(files)
        for one in files:
            data = one.read_bytes()
            name = f"{source.name}/{one.relative_to(source).as_posix()}"
            archive.writestr(name, changed(random, data) if one == chosen else data)


OF_FOLDERS: dict[str, Callable[[Random, Path, Path], None]] = {
    "members swapped": members_swapped,
    "members left out": members_left_out,
    "a member of another kind": member_of_another_kind,
    "a member twice": member_twice,
    "a file for a folder": file_for_folder,
    "packed, a member changed": folder_in_zip,
}


# ---------------------------------------------------------------- an archive


def _members(path: Path) -> dict[str, bytes]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return {
                one.filename: archive.read(one)
                for one in archive.infolist()
                if not one.is_dir() and one.file_size <= PACKED_MEMBER_BYTES_MAX
            }
    with tarfile.open(path) as tar:
        return {
            one.name: tar.extractfile(one).read()  # type: ignore[union-attr]
            for one in tar.getmembers()
            if one.isfile()
        }


def _pack(members: dict[str, bytes], target: Path) -> None:
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return
    with tarfile.open(target, f"w:{target.suffix[1:].replace('tar', '')}") as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def packed_member_changed(random: Random, source: Path, target: Path) -> None:
    members = _members(source)
    name = random.choice(sorted(members))
    members[name] = changed(random, members[name])
    _pack(members, target)


def packed_members_swapped(random: Random, source: Path, target: Path) -> None:
    members = _members(source)
    one, other = random.choices(sorted(members), k=2)
    members[one], members[other] = members[other], members[one]
    _pack(members, target)


def packed_members_left_out(random: Random, source: Path, target: Path) -> None:
    members = _members(source)
    for name in random.sample(sorted(members), random.choice((1, 1, len(members) // 2))):
        del members[name]
    _pack(members, target)


def packed_deeper(random: Random, source: Path, target: Path) -> None:
    """Members in other folders than they should be; an archive in the archive."""
    members = _members(source)
    if random.random() < 0.5:
        _pack({f"deeper/{name}": data for name, data in members.items()}, target)
    else:
        _pack({source.name: source.read_bytes()}, target)


def another_suffix(random: Random, source: Path, target: Path) -> None:
    shutil.copy(source, target.with_name(target.name.split(".")[0] + random.choice(SUFFIXES)))


OF_ARCHIVES: dict[str, Callable[[Random, Path, Path], None]] = {
    "packed members swapped": packed_members_swapped,
    "packed members left out": packed_members_left_out,
    "packed deeper": packed_deeper,
}

WAYS: dict[str, Callable[[Random, Path, Path], None]] = {
    "bytes changed": bytes_changed,
    "member changed": member_changed,
    "packed member changed": packed_member_changed,
    "moved": another_suffix,
    **OF_FILES,
    **OF_FOLDERS,
    **OF_ARCHIVES,
}
