"""The catalog's counters, one small value that every transaction reads first."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

from geostore.errors import CorruptDataError
from geostore.index.environment import Databases, Transaction

__all__ = ["State", "pack_id", "unpack_id"]

STATE_KEY = b"state"
_STATE = struct.Struct("<QQQQ")
_ID = struct.Struct(">Q")


def pack_id(number: int) -> bytes:
    """A counter as a key: big-endian, so that keys sort as numbers do."""
    return _ID.pack(number)


def unpack_id(key: bytes) -> int:
    """The counter of a key."""
    return int(_ID.unpack(key)[0])


@dataclass(frozen=True, slots=True)
class State:
    """What a follower compares with what it has seen. Every counter only grows."""

    generation: int = 0
    """Raised by a rebuild; its parity says which databases are served."""
    next_row_id: int = 1
    """Row ids below this were given out, in the order of publication."""
    removed_next: int = 0
    """The next entry of the removal log."""
    removed_floor: int = 0
    """The oldest entry that the removal log still has."""

    @classmethod
    def read(cls, txn: Transaction[bytes], db: Databases) -> Self:
        """
        Raises:
            CorruptDataError: the counters do not read.
        """
        value = txn.get(STATE_KEY, db=db["meta"])
        if value is None:
            return cls()
        if len(value) != _STATE.size:
            raise CorruptDataError(
                f"catalog: counters of {len(value)} bytes, expected {_STATE.size}"
            )
        return cls(*_STATE.unpack(value))

    def write(self, txn: Transaction[bytes], db: Databases) -> None:
        value = _STATE.pack(
            self.generation, self.next_row_id, self.removed_next, self.removed_floor
        )
        txn.put(STATE_KEY, value, db=db["meta"])
