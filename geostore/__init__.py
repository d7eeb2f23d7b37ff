"""Satellite scenes in, tensors out.

`geostore.open("./data")` opens a store: `ingest` puts scenes in, `query` finds tiles by
place, time, cloud and coverage, and a tile reads as an array. Importing this package loads
nothing heavy: numpy, rasterio and the rest come with the first store that is opened.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from geostore import errors
from geostore.errors import GeostoreError

if TYPE_CHECKING:
    from geostore import where
    from geostore.api import Selection, Store, Tile
    from geostore.types import BBox, TimeSpan

__all__ = [
    "BBox",
    "GeostoreError",
    "Selection",
    "Store",
    "Tile",
    "TimeSpan",
    "__version__",
    "errors",
    "open",
    "where",
]

_LATE = {
    "BBox": "geostore.types",
    "Selection": "geostore.api",
    "Store": "geostore.api",
    "Tile": "geostore.api",
    "TimeSpan": "geostore.types",
}


def open(  # noqa: A001 - the contract's name: `geostore.open(...)`, as in rasterio
    target: str | os.PathLike[str],
    *,
    mode: Literal["a", "r"] = "a",
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    insecure: bool | None = None,
) -> Store:
    """Open the store at `target`: a directory, made at the first write where it is absent, or
    a cluster, `geostore://host:port[,host:port...]`, any of whose nodes is a way in.

    `mode="a"` may write: the first write takes the store's one writer lock. `mode="r"`
    never writes and needs the store to exist. Any number of readers work beside a writer.

    A cluster on other machines needs TLS (`tls_ca`, and `tls_cert` with `tls_key` where its
    nodes ask for them) or `insecure=True`; without them `GEOSTORE_TLS_CA` and the like count.

    Raises:
        InvalidInputError: a target or mode that cannot be, or an address without TLS.
        UnavailableError: no node of the cluster answers.
        NotFoundError: `mode="r"` and no store is there.
        StoreFormatError: the directory holds something else, or a newer geostore's store.
    """
    from geostore import api

    return api.open(
        target, mode=mode, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, insecure=insecure
    )


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from geostore.config import installed_version

        return installed_version()
    from importlib import import_module

    if name == "where":
        return import_module("geostore.where")
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
