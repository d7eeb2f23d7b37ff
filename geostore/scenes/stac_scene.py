"""The scene of an item by what the item says, for products that have no reader of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from geostore.errors import UnreadableSourceError
from geostore.raster.positions import native_pixel_size_m
from geostore.scenes.registry import reader_named
from geostore.scenes.scene import ReadOptions, Scene, SceneBand
from geostore.scenes.source import Source
from geostore.scenes.stac import collection_reader
from geostore.scenes.stac_bands import band_info, cloud_layer, data_assets, nodata_of
from geostore.scenes.stac_item import Asset, StacItem
from geostore.types import BandInfo, BandRole, CloudLayer

__all__ = ["item_scene", "short_properties"]

PROPERTIES_MAX = 100
PROPERTY_CHARACTERS_MAX = 512

# Catalogues that repackage products band by band: the reader whose bands they are, and the layer
# that tells cloud there. (Those that keep the product's files are known by the files.)
_REPACKAGED = (
    (re.compile(r"^sentinel-(2|s2)(-c1)?-l2a(-cogs)?$"), "sentinel-2-l2a"),
    (re.compile(r"^sentinel-(2|s2)(-c1)?-l1c(-cogs)?$"), "sentinel-2-l1c"),
)
_CLOUD_LAYERS = {
    "SCL": CloudLayer("SCL", "classes", frozenset({8, 9, 10}), nodata_values=frozenset({0})),
}
_KEYS = {"scl": "SCL", "aot": "AOT", "wvp": "WVP", "cloud": "CLDPRB", "snow": "SNWPRB"}


def short_properties(item: StacItem) -> dict[str, Any]:
    """The item's properties, bounded: they are kept with every tile."""
    kept: dict[str, Any] = {"id": item.id}
    if item.collection:
        kept["collection"] = item.collection[:PROPERTY_CHARACTERS_MAX]
    for name, value in sorted(item.properties.items()):
        if len(kept) < PROPERTIES_MAX and len(json.dumps(value)) <= PROPERTY_CHARACTERS_MAX:
            kept[name[:128]] = value
    return kept


def item_scene(item: StacItem, source: Source, options: ReadOptions, reader: str | None) -> Scene:
    """One scene with a band for each band of each data asset. Its assets are fetched now.

    Args:
        item: what is said.
        source: its assets, by the names that `source.shown` leads back to their places.
        options: a time for items that state none.
        reader: `stac` or one of its variants, where the caller chose it.

    Raises:
        UnreadableSourceError: no asset is a raster; one cannot be had, or is not placed.
    """
    assets = data_assets(item.assets)
    if not assets:
        raise UnreadableSourceError(
            f"{item.shown}: none of its {len(item.assets)} assets is a raster with data; expected"
            " GeoTIFF or JPEG 2000"
        )
    members = {source.shown(member): member for member in source.names()}
    used: dict[str, Asset] = {}
    for asset in assets:
        if asset.place is None:
            raise UnreadableSourceError(f"{asset.trouble} (asset {asset.key!r})")
        if str(asset.place) not in members:
            raise UnreadableSourceError(f"{asset.place}: no such file, asset {asset.key!r}")
        used[members[str(asset.place)]] = asset
    source.rasters(used)  # fetched side by side
    table = _table(item) if reader is None else None
    made = _Bands(source, table)
    for member, asset in used.items():
        made.add(member, asset)
    span = item.time or options.time
    is_known = table is not None and made.is_known
    bands = tuple(made.bands)
    own_name = reader or collection_reader(item.collection)
    return Scene(
        id=item.scene_id,
        reader=table.name if table is not None and is_known else own_name,
        path=item.shown,
        time_us=span.start_us if span else None,
        time_end_us=span.end_us if span else None,
        platform=item.platform,
        bands=bands,
        missing=made.missing() if is_known else (),
        previews=tuple(
            asset.key[:64] for asset in item.assets if "visual" in asset.roles | {asset.key}
        ),
        cloud=made.cloud(),
        likelihood_band=next(
            (band.info.name for band in bands if band.info.role is BandRole.LIKELIHOOD), None
        ),
        properties=short_properties(item),
        fingerprint=source.fingerprint(used),
    )


class _Table:
    """Bands that a product's reader knows, by their names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bands = {band.name: band for band in reader_named(name).bands}

    def find(self, info: BandInfo, asset: Asset) -> BandInfo | None:
        """The band by its name, by the asset's key, or by its common name."""
        by_key = self.bands.get(_KEYS.get(asset.key.lower(), asset.key))
        if info.name in self.bands or by_key is not None:
            return self.bands.get(info.name, by_key)
        same = [one for one in self.bands.values() if one.common_name == info.common_name]
        return same[0] if info.common_name and len(same) == 1 else None


def _table(item: StacItem) -> _Table | None:
    collection = (item.collection or "").lower()
    return next((_Table(name) for pattern, name in _REPACKAGED if pattern.match(collection)), None)


class _Bands:
    """The scene's bands as they are collected."""

    def __init__(self, source: Source, table: _Table | None) -> None:
        self._source = source
        self._table = table
        self._taken: set[str] = set()
        self._said: list[tuple[BandInfo, Mapping[str, Any]]] = []
        self.bands: list[SceneBand] = []
        self.is_known = False
        """Whether any band is one of the table's."""

    def add(self, member: str, asset: Asset) -> None:
        """Every band of one asset's file but masks."""
        file = self._source.raster(member)
        header = file.header
        if not header.crs_wkt or not (header.has_transform or header.control):
            raise UnreadableSourceError(
                f"{file.name}: it does not say where it lies; expected a CRS and a transform"
            )
        numbers = [n for n, band in enumerate(header.bands, 1) if band.color != "alpha"]
        for number in numbers:
            said = asset.bands[number - 1] if number <= len(asset.bands) else {}
            about = header.bands[number - 1]
            source = self._source.band(member, number, nodata=nodata_of(said, about))
            info = band_info(
                asset,
                number,
                len(numbers),
                about,
                nodata=source.nodata,
                resolution_m=native_pixel_size_m(source.grid),
                taken=self._taken,
            )
            info = self._as_known(info, asset)
            self._said.append((info, said))
            self.bands.append(SceneBand(info, source))

    def _as_known(self, info: BandInfo, asset: Asset) -> BandInfo:
        known = self._table.find(info, asset) if self._table is not None else None
        if known is None or (known.name != info.name and known.name in self._taken):
            return info
        self.is_known = True
        self._taken.discard(info.name)
        self._taken.add(known.name)
        return replace(
            known,
            dtype=info.dtype,
            nodata=info.nodata,
            scale=info.scale if info.scale != 1.0 else known.scale,
            offset=info.offset,
            unit=info.unit or known.unit,
            native_resolution_m=info.native_resolution_m,
        )

    def missing(self) -> tuple[str, ...]:
        """Bands of the table that the item lacks."""
        known = self._table.bands if self._table else ()
        return tuple(name for name in known if name not in self._taken)

    def cloud(self) -> CloudLayer | None:
        names = {band.info.name for band in self.bands}
        known = [layer for name, layer in _CLOUD_LAYERS.items() if name in names and self.is_known]
        return known[0] if known else cloud_layer(self._said)
