"""Which readers there are, and which of them reads a given path.

Built-in readers come first, then third parties' (entry points of the group
`geostore.readers`, by name), and last those of any netCDF file and of any raster, which claims
whatever GDAL opens: so a plug-in wins over them, and never over a product that geostore knows.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from geostore.errors import (
    GeostoreError,
    InternalError,
    InvalidInputError,
    UnreadableSourceError,
)
from geostore.scenes.geotiff import GeotiffReader
from geostore.scenes.landsat import LANDSAT_READERS
from geostore.scenes.modis import ModisReader
from geostore.scenes.naip import NaipReader
from geostore.scenes.netcdf import NetcdfReader
from geostore.scenes.nlcd import NlcdReader
from geostore.scenes.scene import Reader, ReaderFamily, ReadOptions, Scene
from geostore.scenes.sentinel2 import Sentinel2Reader
from geostore.scenes.source import Source
from geostore.scenes.stac import StacReader
from geostore.types import validate_name

__all__ = ["ENTRY_POINT_GROUP", "claimant", "detect", "open_source", "reader_named", "readers"]

ENTRY_POINT_GROUP = "geostore.readers"

_METADATA_SUFFIXES = (".xml", ".txt", ".json", ".safe")
PARENTS_MAX = 4
"""How far above a file named outright its product is looked for, to say what to name."""

_BUILT_IN: tuple[Reader, ...] = (
    Sentinel2Reader("L1C"),
    Sentinel2Reader("L2A"),
    *LANDSAT_READERS,
    ModisReader(),
    NaipReader(),
    NlcdReader(),
    StacReader(),  # claims nothing: its sources are named outright
)
_ANY_RASTER: tuple[Reader, ...] = (NetcdfReader(), GeotiffReader())


def _load(entry: EntryPoint) -> Reader:
    """The reader that an entry point names: an instance, or a class without arguments."""
    value = entry.load()
    reader = value() if isinstance(value, type) else value
    for attribute in ("name", "defaults", "bands", "claims", "open"):
        if not hasattr(reader, attribute):
            raise TypeError(f"it has no {attribute!r}, see the Reader protocol")
    validate_name(reader.name, "reader")
    return reader  # type: ignore[no-any-return]


@lru_cache(maxsize=4)
def _plug_ins(search_path: tuple[str, ...]) -> tuple[dict[str, Reader], dict[str, str]]:
    """Third parties' readers by name, and why others could not be loaded.

    Cached by `sys.path`, since each look reads every installed distribution's metadata.
    """
    del search_path
    loaded: dict[str, Reader] = {}
    broken: dict[str, str] = {}
    taken = {reader.name for reader in (*_BUILT_IN, *_ANY_RASTER)}
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda one: one.name):
        try:
            reader = _load(entry)
        except Exception as error:  # noqa: BLE001 - a plug-in may fail in any way
            broken[entry.name] = f"{entry.value}: {type(error).__name__}: {error}"
            continue
        if reader.name in taken:
            broken[entry.name] = f"{entry.value}: a reader {reader.name!r} is there already"
        else:
            taken.add(reader.name)
            loaded[reader.name] = reader
    return loaded, broken


def readers() -> dict[str, Reader]:
    """Every reader by name, in the order in which they are asked."""
    plug_ins, _ = _plug_ins(tuple(sys.path))
    everyone = (*_BUILT_IN, *plug_ins.values(), *_ANY_RASTER)
    return {reader.name: reader for reader in everyone}


def reader_named(name: str) -> Reader:
    """The reader of that name, or the variant of a family.

    Raises:
        InvalidInputError: there is none; the known ones are named.
    """
    known = readers()
    if name in known:
        return known[name]
    for reader in known.values():
        variant = reader.variant(name) if isinstance(reader, ReaderFamily) else None
        if variant is not None:
            return variant
    raise InvalidInputError(f"reader {name!r}: expected one of {', '.join(known)}{_broken_text()}")


def claimant(source: Source) -> Reader | None:
    """The first reader that claims `source`; None where none does."""
    return next((reader for reader in readers().values() if reader.claims(source)), None)


def _broken_text() -> str:
    """What to add to a message where a plug-in that could not be loaded may be the cause."""
    _, broken = _plug_ins(tuple(sys.path))
    return "".join(f"; plug-in {name} could not be loaded: {why}" for name, why in broken.items())


def detect(path: str | os.PathLike[str]) -> Reader | None:
    """The reader that claims what lies at `path`; None where none does.

    Raises:
        NotFoundError: nothing is there.
        InvalidInputError: not a local path.
        UnreadableSourceError: a damaged or hostile archive, or no permission.
    """
    with Source(path) as source:
        return claimant(source)


def open_source(
    path: str | os.PathLike[str] | Source,
    *,
    reader: str | None = None,
    options: ReadOptions | None = None,
) -> list[Scene]:
    """The scenes at `path`, opened; the caller closes each.

    Args:
        path: a file, product directory or archive; or a source, which is closed.
        reader: the reader to use, whatever it would claim; detected unless given.
        options: what the caller knows of the scenes.

    Raises:
        NotFoundError: nothing is there.
        InvalidInputError: not a local path, or no reader of that name (the known ones are
            named).
        UnreadableSourceError: no reader claims it, or it is damaged, incomplete or hostile.
    """
    source = path if isinstance(path, Source) else Source(path)
    try:
        scenes = _chosen(source, reader).open(source, options or ReadOptions())
    except BaseException:
        source.discard()
        raise
    source.close()
    if not scenes:
        raise InternalError(f"{source.path}: its reader returned no scene")
    return scenes


def _chosen(source: Source, name: str | None) -> Reader:
    if name is None:
        found = claimant(source)
        if found is None:
            raise UnreadableSourceError(
                f"{source.path}: no reader claims it; {_instead(source)}{_broken_text()}"
            )
        return found
    return reader_named(name)


def _instead(source: Source) -> str:
    """What to name in place of a part of a product, or which readers there are."""
    if source.local.suffix.lower() in _METADATA_SUFFIXES and source.local.is_file():
        for folder in source.local.parents[:PARENTS_MAX]:
            try:
                is_product = detect(folder) is not None
            except GeostoreError:
                continue  # it cannot be what was meant
            if is_product:
                return f"it is a part of the product in its folder, so name that: {folder}"
    return f"known are {', '.join(readers())}"
