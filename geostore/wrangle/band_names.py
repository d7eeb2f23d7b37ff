"""Whether a band's name means one thing over all tiles of a selection.

Providers number bands by sensor: Landsat's `B4` is near infrared on Landsat 5 and red on
Landsat 8. Such a name is good for tiles of one platform; common names (`red`) are good for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from geostore.errors import InvalidInputError
from geostore.types import TileRow, TileSchema

__all__ = ["BandNames", "check_band_names"]

_NO_PLATFORM = "tiles of no known platform"


class BandNames:
    """Remembers what names meant in the tiles seen so far; not for several threads."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._seen: set[tuple[str, str | None]] = set()
        self._meanings: dict[str, dict[str | None, str | None]] = {}
        """By name: the platform on which it was met first with each meaning."""

    def see(self, row: TileRow) -> None:
        """Takes one more tile into account.

        Raises:
            InvalidInputError: a name means something else here than on another platform.
        """
        pair = (row.schema.digest, row.platform)
        if pair in self._seen:
            return
        self._seen.add(pair)
        for name, meaning in _meanings(row.schema, self._names):
            platforms = self._meanings.setdefault(name, {})
            for known, platform in platforms.items():
                if known != meaning and platform != row.platform:
                    raise InvalidInputError(
                        f"band {name!r} is {_shown(known, platform)} and"
                        f" {_shown(meaning, row.platform)}: ask for common names, as"
                        f" {known or meaning!r}, or select one platform"
                    )
            platforms.setdefault(meaning, row.platform)


def check_band_names(rows: Iterable[TileRow], names: Sequence[str] | None) -> None:
    """Checks that each of `names` means one thing over all `rows`; None: nothing is asked for.

    Raises:
        InvalidInputError: a name means different things on different platforms.
    """
    seen = BandNames(names or ())
    for row in rows:
        seen.see(row)


def _meanings(schema: TileSchema, names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each name that a band of the schema answers to, with what it is called by everybody."""
    for name in names:
        position = schema.find_band(name)
        if position is not None:
            info = schema.groups[position[0]].bands[position[1]]
            yield name, info.common_name if info.name == name else name


def _shown(meaning: str | None, platform: str | None) -> str:
    return f"{meaning or 'a band without a common name'} on {platform or _NO_PLATFORM}"
