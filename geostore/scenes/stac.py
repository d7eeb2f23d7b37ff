"""Reader `stac`: items whose assets are rasters, where no product's own reader knows them.

Its datasets are named after the item's collection: `stac-<collection>`. It claims nothing: a STAC
document is ingested only where it is named outright, so that one that lies beside its product is
not ingested a second time. See `geostore.scenes.find_remote`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from geostore.errors import UnreadableSourceError
from geostore.scenes.scene import Reader, ReaderDefaults, ReadOptions, Scene
from geostore.types import BandInfo

if TYPE_CHECKING:
    from geostore.scenes.source import Source

__all__ = ["STAC", "StacReader", "collection_reader"]

STAC = "stac"

COLLECTION_CHARACTERS_MAX = 100

_COLLECTION = re.compile(r"^stac-[a-z0-9][a-z0-9._-]*$")
_OTHER_CHARACTERS = re.compile(r"[^a-z0-9._-]+")


def collection_reader(collection: str | None) -> str:
    """The name of the reader, and dataset, for items of a collection.

    >>> collection_reader("HLS S30 v2.0")
    'stac-hls-s30-v2.0'
    >>> collection_reader(None)
    'stac'
    """
    text = _OTHER_CHARACTERS.sub("-", (collection or "").lower())[:COLLECTION_CHARACTERS_MAX]
    name = f"{STAC}-{text.strip('._-')}"
    return name if _COLLECTION.match(name) else STAC


class StacReader:
    """A reader of items, of any collection or of one."""

    defaults = ReaderDefaults()
    bands: tuple[BandInfo, ...] = ()

    def __init__(self, name: str = STAC) -> None:
        self.name = name

    def variant(self, name: str) -> Reader | None:
        """The reader of one collection's items."""
        return StacReader(name) if _COLLECTION.match(name) else None

    def claims(self, source: Source) -> bool:
        """Nothing: items are found by who names them."""
        del source
        return False

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        """Only to say what was expected: items are opened with what their assets point to."""
        del options
        raise UnreadableSourceError(
            f"{source.path}: no STAC item or item collection (JSON of type Feature or"
            " FeatureCollection with assets)"
        )
