"""Schemes by name."""

from __future__ import annotations

from geostore.errors import InvalidInputError
from geostore.grid.cells import Scheme
from geostore.grid.geohash import GEOHASH
from geostore.grid.quadtile import QUADTILE

__all__ = ["scheme"]

_SCHEMES: dict[str, Scheme] = {"geohash": GEOHASH, "quadtile": QUADTILE}


def scheme(name: str) -> Scheme:
    """The scheme of that name, `geohash` or `quadtile`.

    Raises:
        InvalidInputError: another name; the message lists the known ones.
    """
    try:
        return _SCHEMES[name]
    except KeyError:
        raise InvalidInputError(f"scheme {name!r}: expected one of {', '.join(_SCHEMES)}") from None
