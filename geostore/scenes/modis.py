"""MODIS land products on grids: HDF4-EOS files, and their layers as GeoTIFF or JPEG 2000.

One reader for all products, a family: a scene's reader is `modis-` and the product's short
name, lower case, which is its dataset's name too. Files are told by their content (HDF4's
first bytes; the sinusoidal grid's CRS), never by the name alone; names of converted layers say
which product and day they came from, since nothing else in most of them does.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from geostore.errors import UnreadableSourceError
from geostore.scenes.modis_hdf import HDF4_MAGIC, open_granule
from geostore.scenes.modis_products import LENGTHS, Product, parse_product
from geostore.scenes.modis_rasters import claims_rasters, open_rasters
from geostore.scenes.scene import Reader, ReaderDefaults, ReadOptions, Scene
from geostore.types import BandInfo

if TYPE_CHECKING:
    from geostore.scenes.source import Source

__all__ = ["ModisReader"]

_HDF_SUFFIXES = (".hdf", ".hdf4", ".h4", ".he4")
_VARIANT = re.compile(r"^modis-(?P<product>[a-z0-9][a-z0-9._-]{0,99})$")


class ModisReader:
    """Reader `modis` of any product, or `modis-<product>` of one.

    Args:
        product: None for any.
    """

    bands: tuple[BandInfo, ...] = ()

    def __init__(self, product: Product | None = None) -> None:
        self._product = product
        self.name = "modis" if product is None else product.reader
        sizes = None if product is None else product.resolutions_m
        self.defaults = ReaderDefaults(sizes, LENGTHS)

    def variant(self, name: str) -> Reader | None:
        """The reader of one product, `modis-mod09ga`; any product may be named."""
        match = _VARIANT.match(name)
        return None if match is None else ModisReader(parse_product(match["product"]))

    def claims(self, source: Source) -> bool:
        """By HDF4's first bytes, or as layers that were converted to rasters."""
        return bool(_hdf_members(source)) or claims_rasters(source)

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        """One scene a granule; `options.time` counts where nothing states a time."""
        members = _hdf_members(source)
        if not members:
            return open_rasters(source, options, self._check)
        scenes: list[Scene] = []
        with ExitStack() as opened:
            for member in members:
                several = len(members) > 1
                scenes.append(
                    open_granule(source, member, options, self._check, is_one_of_many=several)
                )
                opened.callback(scenes[-1].close)
            opened.pop_all()
        return scenes

    def _check(self, shown: str, product: Product) -> None:
        """Raises UnreadableSourceError: another product than this reader's."""
        if self._product is not None and product.reader != self.name:
            raise UnreadableSourceError(
                f"{shown}: product {product.name}; reader {self.name} reads"
                f" {self._product.name} only (modis reads any)"
            )


def _hdf_members(source: Source) -> list[str]:
    """HDF4 files: the source itself, or an archive's; in a directory each is its own source."""
    if source.is_dir:
        return []
    return [
        member
        for member in source.names()
        if (not source.is_archive or PurePosixPath(member).suffix.lower() in _HDF_SUFFIXES)
        and source.head(member, len(HDF4_MAGIC)) == HDF4_MAGIC
    ]
