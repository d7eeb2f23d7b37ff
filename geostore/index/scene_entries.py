"""What tiles of a scene version have in common, by number: where in the log each entry lies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError
from geostore.index.effects import Scene, ValueAt
from geostore.index.log_layout import REBUILD
from geostore.index.packing import DIGEST_BYTES, Group

__all__ = ["PLACE", "SceneEntries"]

PLACE: Final = np.dtype(
    [("segment", "<i4"), ("offset", "<i8"), ("head", "<u4"), ("properties", "<u4")]
)
"""Where an entry lies: its head, and right behind it its properties (bytes of each)."""

DECODED_MAX: Final = 256
NEW_HEADS_MAX: Final = 65_536

View = Callable[[ValueAt], memoryview]


class SceneEntries:
    """Entries by number, from 0 as they come. About 200 bytes each; the texts stay in the log.

    Not thread-safe: the catalog holds its lock.
    """

    def __init__(
        self, view: View, digests: Sequence[bytes] = (), places: npt.NDArray[Any] | None = None
    ) -> None:
        self._view = view
        self.digests = list(digests)
        self._numbers = {digest: number for number, digest in enumerate(self.digests)}
        self._places = np.zeros(16, PLACE) if places is None else places
        self._decoded: dict[int, Group] = {}
        self._new_heads: dict[int, bytes] = {}
        """Of entries that came and were not asked for yet."""

    def __len__(self) -> int:
        return len(self.digests)

    def add(self, scene: Scene) -> None:
        """Takes in an entry, or another place of one that is known."""
        number = self._numbers.get(scene.digest)
        if number is None:
            number = self._numbers[scene.digest] = len(self.digests)
            self.digests.append(scene.digest)
        if number >= len(self._places):
            grown = np.zeros(max(2 * number, 16), PLACE)
            grown[: len(self._places)] = self._places
            self._places = grown
        if len(self._new_heads) >= NEW_HEADS_MAX:
            self._new_heads.clear()
        self._new_heads[number] = scene.head
        at, head = scene.properties_at, len(scene.head)
        self._places[number] = (at.segment, at.offset - head, head, at.length)

    def places(self) -> npt.NDArray[Any]:
        """(n,) of PLACE."""
        return self._places[: len(self.digests)]

    def number(self, digest: bytes) -> int:
        """
        Raises:
            CorruptDataError: there is none of that digest.
        """
        number = self._numbers.get(digest)
        if number is None:
            raise CorruptDataError(
                f"catalog: a tile names scene entry {digest.hex()}, which is missing; {REBUILD}"
            )
        return number

    def scene(self, number: int) -> Scene:
        """The entry as it was put. One copy of its bytes.

        Raises:
            CorruptDataError: it does not match its digest.
        """
        segment, offset, head, properties = self._places[number].tolist()
        both = self._view(ValueAt(segment, offset, head + properties))
        found = Scene(self.digests[number], bytes(both[:head]), bytes(both[head:]))
        digest = hashlib.blake2b(found.head, digest_size=DIGEST_BYTES)
        digest.update(b"\0" + found.properties)
        if digest.digest() != found.digest:
            raise CorruptDataError(
                f"catalog: scene entry {found.digest.hex()} in segment {segment} at offset"
                f" {offset} does not match its digest; {REBUILD}"
            )
        return found

    def head(self, number: int) -> Group:
        """What the entry says, but for its properties. Raises CorruptDataError."""
        head = self._new_heads.pop(number, None)
        return self.group(number) if head is None else Group.decode(head)

    def group(self, number: int) -> Group:
        """What the entry says; the last ones asked for are remembered. Raises CorruptDataError."""
        found = self._decoded.get(number)
        if found is None:
            scene = self.scene(number)
            found = Group.decode(scene.head, scene.properties)
            if len(self._decoded) >= DECODED_MAX:
                self._decoded.clear()
            self._decoded[number] = found
        return found
