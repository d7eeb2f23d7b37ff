"""Making the next message of a stream while gRPC sends this one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, cast

__all__ = ["one_ahead"]

_Item = TypeVar("_Item")
_END: Final = object()


def one_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The same items; each is made, in another thread, while the caller has the one before.

    gRPC's sync server asks for a message when the one before has left: reading from the disk
    and sending then take turns. Two items are held at a time. Closing waits for the one that
    is being made; what making raises is raised in its place.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="geostore-ahead") as pool:
        making = pool.submit(next, items, _END)
        while (item := making.result()) is not _END:
            making = pool.submit(next, items, _END)
            yield cast("_Item", item)
