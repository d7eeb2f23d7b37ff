"""Erdas Imagine images whose pixels lie in a second file: `nlcd.img` and `nlcd.ige`.

The first names the second. GDAL follows that name wherever it leads, so a pair is opened in a
folder of its own, which holds a link to each and nothing else, and a name that is more than a
file's name is refused before.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geostore.errors import UnreadableSourceError
from geostore.raster.imagine import MAGIC as IMAGE_MAGIC
from geostore.raster.imagine import SPILL_MAGIC, imagine_structure
from geostore.scenes.archive import storage_errors

__all__ = ["IMAGE_MAGIC", "LinkedPair", "Spill", "check_spill", "spill_candidates", "spill_of"]

_FILE_NAME = re.compile(r"^[^./\\:\x00-\x1f\x7f][^/\\:\x00-\x1f\x7f]{0,250}$")
_IMAGE = "image.img"


@dataclass(frozen=True, slots=True)
class Spill:
    """The second file of an image."""

    name: str
    bytes_min: int
    """How long it is at least, by what the first says of its pixels."""


def spill_of(path: str, shown: str) -> Spill | None:
    """Where the image at `path` says its pixels lie; None: in itself, or it is no image.

    Raises:
        UnreadableSourceError: what it names is not the name of one file.
    """
    try:
        structure = imagine_structure(path)
    except OSError:
        return None  # GDAL says why it cannot be opened
    if structure is None or not structure.spills:
        return None
    (name, *others) = structure.spills
    if others or not _FILE_NAME.match(name) or name == _IMAGE:
        raise UnreadableSourceError(
            f"{shown}: its pixels lie in {', '.join(map(repr, structure.spills))[:200]}: expected"
            " the name of one file beside it"
        )
    return Spill(name, structure.spill_bytes)


def spill_candidates(member: str, name: str) -> tuple[str, ...]:
    """Where the second file may be: under its name, or renamed together with the first."""
    beside = PurePosixPath(member)
    renamed = f"{beside.stem}{PurePosixPath(name).suffix}"
    return tuple(dict.fromkeys(str(beside.with_name(one)) for one in (name, renamed)))


def check_spill(spill: Spill, member: str, head: bytes, size: int, shown: str) -> None:
    """Refuses a second file that is none, by its first bytes, or is cut off.

    Raises:
        UnreadableSourceError: with the image `shown` as the file to look at.
    """
    if not head.startswith(SPILL_MAGIC):
        raise UnreadableSourceError(
            f"{shown}: its pixels lie in {member}, which is no Erdas Imagine spill file;"
            " expected one"
        )
    if size < spill.bytes_min:
        raise UnreadableSourceError(
            f"{shown}: its pixels lie in {member}, which has {size} bytes; expected"
            f" {spill.bytes_min}, it is cut off"
        )


class LinkedPair:
    """Two files under the names by which GDAL finds one from the other.

    Args:
        image, spill: where the two lie.
        name: the second file's name, as the first gives it.
        shown: the first file, for messages.
    """

    def __init__(self, image: str, spill: str, name: str, shown: str) -> None:
        with storage_errors(shown):
            self._folder = Path(tempfile.mkdtemp(prefix="geostore-"))
        self.image = str(self._folder / _IMAGE)
        self.spill = str(self._folder / name)
        try:
            with storage_errors(shown):
                Path(self.image).symlink_to(image)
                Path(self.spill).symlink_to(spill)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
