"""MODIS grid products in HDF4-EOS, read through a child process."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product as combinations
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geostore.errors import UnreadableSourceError
from geostore.raster.positions import native_pixel_size_m
from geostore.raster.source import SourceGrid
from geostore.scenes.isolated import IsolatedFile
from geostore.scenes.isolated_pixels import IsolatedPixels
from geostore.scenes.modis_layers import Layer, LayerPixels, describe_layer, parse_day, period_from
from geostore.scenes.modis_metadata import Granule, Grid, GridField, parse_granule, parse_grids
from geostore.scenes.modis_products import Product, cloud_layer, parse_product
from geostore.scenes.scene import ReadOptions, Scene, SceneBand
from geostore.types import TimeSpan
from geostore.types.geo import us_from_datetime

if TYPE_CHECKING:
    from geostore.scenes.source import Source

__all__ = ["HDF4_MAGIC", "open_granule"]

HDF4_MAGIC = b"\x0e\x03\x13\x01"
CHILD = "geostore.scenes.hdf4_process"

BLOCK_PX = 1 << 20
"""Rows are read together up to so many pixels: the library inflates from an array's start."""
BANDS_MAX = 1024
DESCRIPTION_CHARACTERS_MAX = 200

_Y, _X = "YDim", "XDim"
_METADATA = re.compile(r"^(?:Old)?(?P<kind>core|archive|product)metadata(?:\.\d+)?$", re.IGNORECASE)
_GRANULE_NAME = re.compile(
    r"^(?P<product>[A-Z][A-Z0-9]{4,11})\.A(?P<day>\d{7})(?:\.(?P<tile>h\d\dv\d\d))?(?:\.\w+)*$"
)
_SCENE_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")
_SHORT_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
_TILE = re.compile(r"\.h(\d\d)v(\d\d)\.")


@dataclass(frozen=True, slots=True)
class _Array:
    """An array of the file as the child describes it."""

    index: int
    name: str
    shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    dtype: str | None
    attributes: dict[str, Any]


class HdfPixels(IsolatedPixels):
    """A plane of an array, valid where it is not the fill value."""

    def __init__(
        self,
        file: IsolatedFile,
        array: _Array,
        grid: SourceGrid,
        axes: tuple[int, int],
        at: tuple[int, ...],
        nodata: float | int | None,
    ) -> None:
        dtype = array.dtype or ""
        super().__init__(
            file,
            {"index": array.index},
            grid,
            label=array.name,
            stored=dtype,
            dtype=dtype,
            axes=axes,
            at=at,
            nodata=nodata,
        )

    def _valid(self, data: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        valid: npt.NDArray[np.bool_] | None = None
        if data.dtype.kind == "f":
            valid = ~np.isnan(data)
        if self.nodata is not None and not (
            isinstance(self.nodata, float) and math.isnan(self.nodata)
        ):
            same = data != data.dtype.type(self.nodata)
            valid = same if valid is None else valid & same
        return None if valid is None or valid.all() else valid


def open_granule(
    source: Source,
    member: str,
    options: ReadOptions,
    check: Callable[[str, Product], None],
    *,
    is_one_of_many: bool = False,
) -> Scene:
    """The scene in one HDF4-EOS file.

    Args:
        is_one_of_many: scenes of one archive are opened together, so each keeps neither a
            process nor its unpacked bytes until its pixels are wanted.
        check: told the file and its product; raises where it is not what was asked for.

    Raises:
        UnreadableSourceError: damaged, a swath product, or without usable grids.
    """
    shown = source.shown(member)
    local = source.local_file(member)
    file = IsolatedFile(CHILD, library="HDF4", name=shown, path=local.path, on_close=local.close)
    with ExitStack() as opened:
        opened.callback(file.close)
        answer = file.ask({"do": "describe"}).value
        try:
            arrays = [_array(index, one) for index, one in enumerate(answer["datasets"])]
            attributes: dict[str, Any] = dict(answer["attributes"])
            grids = _grids(shown, attributes)
            granule = parse_granule(_metadata(attributes))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UnreadableSourceError):
                raise
            raise UnreadableSourceError(f"{shown}: HDF-EOS metadata: {error}") from error
        stem = PurePosixPath(member).stem
        product = _product(granule, stem, grids)
        check(shown, product)
        scene = _Opener(source, member, file, product, granule, grids, arrays).scene(stem, options)
        if is_one_of_many:
            file.rest()
            local.rest()
        return scene


def _array(index: int, value: dict[str, Any]) -> _Array:
    dtype = value["dtype"]
    return _Array(
        index,
        str(value["name"]),
        tuple(int(side) for side in value["shape"]),
        tuple(str(name) for name in value["dimensions"]),
        None if dtype is None else str(dtype),
        dict(value["attributes"]),
    )


def _joined(attributes: dict[str, Any], stem: str) -> str:
    """A text that the library splits over attributes `stem.0`, `stem.1`, ... of 32,000 each."""
    parts = []
    for number in range(100):
        part = attributes.get(f"{stem}.{number}")
        if not isinstance(part, str):
            break
        parts.append(part.partition("\0")[0])
    return "".join(parts)


def _grids(shown: str, attributes: dict[str, Any]) -> tuple[Grid, ...]:
    text = _joined(attributes, "StructMetadata")
    grids, has_swaths = parse_grids(text)
    if grids:
        return grids
    if has_swaths:
        raise UnreadableSourceError(
            f"{shown}: an HDF-EOS swath product (Level 1 or 2), whose pixels lie on no grid;"
            " expected a gridded product (Level 2G, 3 or 4)"
        )
    found = "HDF-EOS metadata without a grid" if text else "an HDF4 file without HDF-EOS metadata"
    raise UnreadableSourceError(f"{shown}: {found}; expected a grid in StructMetadata.0")


def _metadata(attributes: dict[str, Any]) -> list[str]:
    """Inventory metadata before archive metadata; HEG keeps what it found as `Old...`."""
    order = {"core": 0, "product": 1, "archive": 2}
    found = []
    for name, value in attributes.items():
        match = _METADATA.match(name)
        if match and isinstance(value, str):
            found.append((order[match["kind"].lower()], name, value))
    return [value for _, _, value in sorted(found)]


def _product(granule: Granule, stem: str, grids: tuple[Grid, ...]) -> Product:
    """By the metadata; only where they do not say by the file's name, if its layers agree."""
    local_id = granule.text("LOCALGRANULEID") or ""
    match = _GRANULE_NAME.match(local_id.removesuffix(".hdf"))
    name = granule.text("SHORTNAME") or (match["product"] if match else None)
    if name is not None and _SHORT_NAME.match(name):
        return parse_product(name)
    match = _GRANULE_NAME.match(stem)
    if match is not None:
        product = parse_product(match["product"])
        layers = {field.name for grid in grids for field in grid.fields}
        if layers & set(product.layers):
            return product
    return Product("unknown")


class _Opener:
    """Makes the scene of one file."""

    def __init__(
        self,
        source: Source,
        member: str,
        file: IsolatedFile,
        product: Product,
        granule: Granule,
        grids: tuple[Grid, ...],
        arrays: list[_Array],
    ) -> None:
        self._source = source
        self._member = member
        self._file = file
        self._product = product
        self._granule = granule
        self._grids = grids
        self._arrays = arrays
        self._lacking: list[str] = []
        self._ranges: dict[str, list[float]] = {}

    def scene(self, stem: str, options: ReadOptions) -> Scene:
        with ExitStack() as made:
            bands = []
            for band in self._bands():
                made.callback(band.source.close)
                bands.append(band)
            if not bands:
                raise UnreadableSourceError(
                    f"{self._file.name}: no array of numbers lies on its grids"
                    f" ({', '.join(grid.name for grid in self._grids)[:200]})"
                )
            scene = self._scene(stem, options, tuple(bands))
            made.pop_all()
        return scene

    def _scene(self, stem: str, options: ReadOptions, bands: tuple[SceneBand, ...]) -> Scene:
        product = self._product
        span = _span(self._granule, product, stem) or options.time
        folder = self._member.rpartition("/")[0]
        fingerprint = self._source.fingerprint([self._member], folder)
        names = {band.info.name for band in bands}
        missing = [*(name for name in product.layers if name not in names), *self._lacking]
        return Scene(
            id=self._scene_id(stem, fingerprint),
            reader=product.reader,
            path=self._source.path,
            time_us=span.start_us if span else None,
            time_end_us=span.end_us if span else None,
            platform=_platform(self._granule, product),
            bands=bands,
            missing=tuple(dict.fromkeys(missing)),
            cloud=cloud_layer(product, [band.info.name for band in bands]),
            properties=self._properties(stem),
            fingerprint=fingerprint,
        )

    def _scene_id(self, stem: str, fingerprint: str) -> str:
        """The granule's own id; without one the file's name, if it is a granule's."""
        local_id = (self._granule.text("LOCALGRANULEID") or "").removesuffix(".hdf")
        for candidate in (local_id, stem if _GRANULE_NAME.match(stem) else ""):
            if _SCENE_ID.match(candidate):
                return candidate
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:150]
        return f"{plain or self._product.name}-{fingerprint[:8]}"

    def _bands(self) -> Iterator[SceneBand]:
        taken: set[str] = set()
        for grid in self._grids:
            for one in grid.fields:
                if not {_Y, _X} <= set(one.dimensions):
                    continue  # lists beside the grid: MOD09GA's additional observations
                array = self._find(grid, one)
                if array is None:
                    self._lacking.append(one.name)
                    continue
                if array.dtype is None:
                    continue  # characters, or 64-bit integers, which the library cannot read
                layer = f"{grid.name}:{one.name}" if one.name in taken else one.name
                taken.add(layer)
                yield from self._planes(grid, one, array, layer, len(taken))

    def _find(self, grid: Grid, one: GridField) -> _Array | None:
        """The field's array: by its name, and by its dimensions' where grids share names."""
        named = [array for array in self._arrays if array.name == one.name]
        mine = [
            array
            for array in named
            if any(name.endswith(f":{grid.name}") for name in array.dimensions)
        ]
        array = next(iter(mine or named), None)
        if array is None:
            return None
        sides = dict(zip(one.dimensions, array.shape, strict=False))
        if len(array.shape) != len(one.dimensions) or (sides[_Y], sides[_X]) != (
            grid.height,
            grid.width,
        ):
            raise UnreadableSourceError(
                f"{self._file.name}: {one.name} is {' x '.join(map(str, array.shape))} pixels,"
                f" expected {grid.height} x {grid.width} of grid {grid.name!r}"
            )
        return array

    def _planes(
        self, grid: Grid, one: GridField, array: _Array, name: str, so_far: int
    ) -> Iterator[SceneBand]:
        y, x = one.dimensions.index(_Y), one.dimensions.index(_X)
        others = [axis for axis in range(len(array.shape)) if axis not in (y, x)]
        count = math.prod(array.shape[axis] for axis in others)
        if so_far + count > BANDS_MAX:
            raise UnreadableSourceError(
                f"{self._file.name}: more than {BANDS_MAX} bands ({name} alone has {count})"
            )
        rows = max(1, min(grid.height, BLOCK_PX // grid.width))
        place = SourceGrid(grid.crs_wkt, grid.transform, grid.height, grid.width, rows, grid.width)
        size_m = native_pixel_size_m(place)
        for indexes in combinations(*(range(array.shape[axis]) for axis in others)):
            at = [0] * len(array.shape)
            for axis, index in zip(others, indexes, strict=True):
                at[axis] = index
            plane = "_".join([name, *(str(index + 1) for index in indexes)])
            layer = describe_layer(
                self._product,
                one.name,
                array.dtype or "",
                array.attributes,
                name=plane,
                native_resolution_m=size_m,
            )
            yield self._band(layer, array, place, (y, x), tuple(at))

    def _band(
        self,
        layer: Layer,
        array: _Array,
        place: SourceGrid,
        axes: tuple[int, int],
        at: tuple[int, ...],
    ) -> SceneBand:
        stated = array.attributes.get("valid_range")
        if isinstance(stated, list) and len(stated) == 2:
            self._ranges[layer.info.name] = stated
        pixels = HdfPixels(self._file, array, place, axes, at, layer.info.nodata)
        return SceneBand(layer.info, LayerPixels(pixels, layer) if layer.has_rules else pixels)

    def _properties(self, stem: str) -> dict[str, Any]:
        granule = self._granule
        tile = _tile(granule, stem)
        cloud = granule.text("QAPERCENTCLOUDCOVER")
        properties = {
            "product": self._product.name,
            "collection": granule.text("VERSIONID"),
            "tile": tile,
            "long_name": (granule.text("LONGNAME") or "")[:DESCRIPTION_CHARACTERS_MAX] or None,
            "day_night": granule.text("DAYNIGHTFLAG"),
            "production_time": granule.text("PRODUCTIONDATETIME"),
            "cloud_cover_product_percent": _percent(cloud),
            "valid_ranges": self._ranges or None,
        }
        return {name: value for name, value in properties.items() if value is not None}


def _percent(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d{1,3}(\.\d+)?", text) else None


def _tile(granule: Granule, stem: str) -> str | None:
    h, v = granule.text("HORIZONTALTILENUMBER"), granule.text("VERTICALTILENUMBER")
    if h and v and re.fullmatch(r"\d{1,2}", h) and re.fullmatch(r"\d{1,2}", v):
        return f"h{int(h):02}v{int(v):02}"
    match = _TILE.search(f".{granule.text('LOCALGRANULEID') or stem}.")
    return f"h{match[1]}v{match[2]}" if match else None


def _platform(granule: Granule, product: Product) -> str | None:
    """Of products made of both satellites' data the metadata may name the first one only."""
    if product.platform is not None:
        return product.platform
    stated = granule.text("ASSOCIATEDPLATFORMSHORTNAME", "PLATFORMSHORTNAME")
    if stated is None:
        match = re.match(r"MODIS/(\w+)", granule.text("LONGNAME") or "")
        stated = match[1] if match else None
    return re.sub(r"[^a-z0-9+_-]+", "-", stated.lower()) if stated else None


def _moment(day: str | None, time: str | None) -> datetime | None:
    """A date and a time of ECS metadata; `24:00:00` is the next day's start."""
    start = parse_day((day or "")[:10])
    match = re.match(r"^(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?", time or "00:00:00")
    if start is None or match is None:
        return None
    hours, minutes, seconds = int(match[1]), int(match[2]), int(match[3])
    if hours > 24 or minutes > 59 or seconds > 60:
        return None
    us = int(((match[4] or "") + "000000")[:6])
    return start + timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=us)


def _span(granule: Granule, product: Product, stem: str) -> TimeSpan | None:
    """What the metadata state; else the days that went in; else the name's day and the period."""
    begin = _moment(granule.text("RANGEBEGINNINGDATE"), granule.text("RANGEBEGINNINGTIME"))
    end = _moment(granule.text("RANGEENDINGDATE"), granule.text("RANGEENDINGTIME"))
    if begin is None:
        begin = end = _moment(granule.text("CALENDARDATE"), granule.text("TIMEOFDAY"))
    if begin is not None:
        begin_us = us_from_datetime(begin)
        return TimeSpan(begin_us, max(begin_us, us_from_datetime(end or begin)))
    days = [day for text in granule.texts("DAYSPROCESSED") if (day := parse_day(text))]
    if days:
        last = period_from(max(days), 1)
        return TimeSpan(us_from_datetime(min(days)), last.end_us)
    match = _GRANULE_NAME.match(granule.text("LOCALGRANULEID") or stem)
    day = parse_day(match["day"]) if match else None
    return period_from(day, product.period) if day is not None else None
