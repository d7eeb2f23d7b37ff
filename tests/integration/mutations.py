"""Ways to damage the bytes of a source file: any file's, and each format's own.

Every function takes a seeded `random.Random` and the bytes, and returns other bytes. Those of
a format know where its sizes, counts and offsets lie, since a byte flipped at random seldom
makes a header that is well formed and absurd. Where a format's field is not found the bytes
are damaged as any file's, so that a mutation is never without effect by accident.
"""

from __future__ import annotations

from tests.integration.mutations_any import ANY, Change
from tests.integration.mutations_rasters import HDF4, HDF5, HFA, JP2, TIFF
from tests.integration.mutations_texts import JSON, TEXT, XML, ZIP, tar_header

__all__ = ["Change", "changes_for"]


def changes_for(data: bytes) -> tuple[Change, ...]:
    """What fits these bytes: half of it any file's, half their format's."""
    own = _own_changes(data)
    return ANY + own * max(1, round(len(ANY) / len(own))) if own else ANY


def _own_changes(data: bytes) -> tuple[Change, ...]:
    for starts, changes in (
        ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TIFF),
        ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), JP2),
        ((b"\x0e\x03\x13\x01",), HDF4),
        ((b"\x89HDF",), HDF5),
        ((b"EHFA_HEADER_TAG",), HFA),
        ((b"PK\x03\x04",), ZIP),
    ):
        if data.startswith(starts):
            return changes
    if data[257:262] == b"ustar":
        return (tar_header,)
    start = data[:200].lstrip(b"\xef\xbb\xbf \r\n\t")
    if start.startswith(b"<"):
        return XML
    if start.startswith((b"{", b"[")):
        return JSON
    if start and b"\0" not in data[:2000] and start.isascii():
        return TEXT
    return ()
