"""Stored blocks of many tiles, fetched ahead of whoever decodes them.

One tile at a time costs a cluster two calls each. Here a backend is told of many at once and
brings them in its own way (a stream a node, some reads side by side), in order and bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from geostore.types import TileRow
from geostore.wrangle.clouds import find_cloud_layer
from geostore.wrangle.reading import BandPlan, Fetched, blocks_of, with_clouds

if TYPE_CHECKING:
    from geostore.backends import Backend
    from geostore.types import CloudLayer, CloudRule, TileKey

__all__ = ["read_ahead"]

DETAILS_AT_ONCE = 64

_Item = TypeVar("_Item")


def read_ahead(
    backend: Backend,
    items: Iterable[_Item],
    asked: Callable[[_Item], tuple[TileRow, Sequence[BandPlan]]],
    *,
    cloud_mask: bool = False,
) -> Iterator[tuple[_Item, Fetched]]:
    """Each item, in order, with the fetched blocks of the tile and bands that it asks for.

    Args:
        backend: where the tiles are.
        items: taken as needed, some ahead.
        asked: an item's tile, and which bands of it will be read.
        cloud_mask: fetch what tells clouds, too.

    Raises:
        NotFoundError: a tile is gone. InvalidInputError: `cloud_mask` where nothing tells.
    """
    told: deque[tuple[_Item, CloudLayer | None]] = deque()
    """Items whose blocks were asked for and did not come yet: as many as the backend takes
    ahead."""

    def wanted() -> Iterator[tuple[TileKey, Sequence[int]]]:
        for item, row, plans, clouds in _with_sources(backend, items, asked, cloud_mask):
            told.append((item, clouds))
            yield row.key, blocks_of(with_clouds(row, plans, clouds))

    with closing(backend.read_tiles(wanted())) as tiles:
        for blocks in tiles:
            item, clouds = told.popleft()
            yield item, Fetched(blocks=blocks, clouds=clouds)


def _with_sources(
    backend: Backend,
    items: Iterable[_Item],
    asked: Callable[[_Item], tuple[TileRow, Sequence[BandPlan]]],
    cloud_mask: bool,
) -> Iterator[tuple[_Item, TileRow, Sequence[BandPlan], CloudLayer | None]]:
    """Each item with its tile and bands, and what tells the tile's clouds."""
    if not cloud_mask:
        for item in items:
            yield item, *asked(item), None
        return
    rules: dict[str, CloudRule] = {}
    left = iter(items)
    while some := list(islice(left, DETAILS_AT_ONCE)):
        answers = [asked(item) for item in some]
        details = backend.details_of([row.key for row, _ in answers])
        for item, (row, plans), one in zip(some, answers, details, strict=True):
            if row.dataset not in rules:
                rules[row.dataset] = backend.dataset(row.dataset).cloud_rule
            yield item, row, plans, find_cloud_layer(row, one, rules[row.dataset])
