"""The cloud masks that come with Level-1C products, as one band of bits.

From baseline 04.00 on they are an image, MSK_CLASSI_B00.jp2: three layers of zeros and ones for
opaque cloud, cirrus and snow at 60 m. Before, they are polygons in GML, MSK_CLOUDS_B00.gml, of
type OPAQUE or CIRRUS, traced around pixels of 60 m in the product's CRS (Sentinel-2 Products
Specification Document, "Cloud mask"). Polygons are burnt where they hold a pixel's centre, which
gives the pixels back that they were traced around.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt
import rasterio
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.features import rasterize

from geostore.errors import InternalError, UnreadableSourceError
from geostore.raster import SourceGrid
from geostore.scenes.sentinel2_xml import elements, parse_xml

if TYPE_CHECKING:
    from geostore.raster import PixelSource, RasterBand
    from geostore.scenes.source import Source

__all__ = [
    "CloudPolygons",
    "MaskLayers",
    "coarsest",
    "on_grid",
    "open_mask_layers",
    "read_cloud_polygons",
]

_Bits = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
_Ring = list[tuple[float, float]]

LAYERS = 3
POLYGON_PIXEL_M = 60.0
BLOCK_PX = 512
PIXELS_MAX = 1 << 25
"""Ten times what a granule has at 60 m; a damaged header may claim anything."""
COORDINATE_M_MAX = 1e8
"""Beyond any point of the globe in UTM or UPS; also leaves out infinities and NaN."""
_TYPES = {"OPAQUE": 0, "CIRRUS": 1}
_CODE = re.compile(r"EPSG:(?:[\d.]*:)?(\d{4,6})$")


class MaskLayers:
    """The three layers of MSK_CLASSI_B00 as the bits of one band, a `PixelSource`.

    Args:
        layers: opaque cloud, cirrus, snow; zero means no.
        measured: a band on the same grid that tells where there is data at all.
    """

    dtype = "uint8"
    nodata = None

    def __init__(self, layers: Sequence[RasterBand], measured: PixelSource | None) -> None:
        self.name = layers[0].name
        self.grid = layers[0].grid
        self._layers = tuple(layers)
        self._measured = measured

    def read(self, row: int, column: int, height: int, width: int) -> tuple[_Bits, _Mask | None]:
        """See `PixelSource`."""
        bits = np.zeros((height, width), np.uint8)
        for bit, layer in enumerate(self._layers):
            bits |= (layer.read(row, column, height, width)[0] != 0).astype(np.uint8) << bit
        if self._measured is None:
            return bits, None
        return bits, self._measured.read(row, column, height, width)[1]

    def close(self) -> None:
        for layer in self._layers:
            layer.close()
        if self._measured is not None:
            self._measured.close()


def open_mask_layers(source: Source, member: str) -> list[RasterBand]:
    """The layers of an MSK_CLASSI_B00.jp2.

    Raises:
        UnreadableSourceError: not an image of three layers with a position.
    """
    header = source.raster(member).header
    if len(header.bands) != LAYERS or header.bands[0].dtype != "uint8" or not header.crs_wkt:
        raise UnreadableSourceError(
            f"{source.shown(member)}: {len(header.bands)} layers of {header.bands[0].dtype}"
            f" {'with' if header.crs_wkt else 'without'} a CRS: expected {LAYERS} of uint8 with"
            " one, for opaque cloud, cirrus and snow"
        )
    return [source.band(member, number + 1, ignore_mask=True) for number in range(LAYERS)]


class CloudPolygons:
    """Polygons of cloud as the bits of one band, a `PixelSource`.

    They are burnt whole when the first pixel is asked for, and kept: a byte a pixel of 60 m,
    3.3 MB for a granule. So what is read does not depend on how it is read.

    Args:
        shapes: bit number and rings (the outer first) of each polygon.
        like: a band of the granule; where its pixels are 60 m, as the mask's, it also tells
            where there is data at all.

    Raises:
        UnreadableSourceError: `like` is far larger than a granule.
    """

    dtype = "uint8"
    nodata = None

    def __init__(
        self, name: str, shapes: Sequence[tuple[int, list[_Ring]]], like: PixelSource
    ) -> None:
        self.name = name
        self.grid = _mask_grid(like.grid)
        if self.grid.height * self.grid.width > PIXELS_MAX:
            raise UnreadableSourceError(
                f"{like.name}: {like.grid.width} x {like.grid.height} pixels: expected an image of"
                f" a granule, whose cloud mask has at most {PIXELS_MAX:,} pixels"
            )
        self._shapes = shapes
        same = self.grid.transform == like.grid.transform
        self._measured = like if same else None
        self._lock = threading.Lock()
        self._bits: _Bits | None = None

    def _burnt(self) -> _Bits:
        with self._lock:
            if self._bits is None:
                bits = np.zeros((self.grid.height, self.grid.width), np.uint8)
                for bit in sorted(_TYPES.values()):
                    rings = [rings for number, rings in self._shapes if number == bit]
                    if rings:
                        bits |= _burn(rings, self.grid) << bit
                self._bits = bits
            return self._bits

    def read(self, row: int, column: int, height: int, width: int) -> tuple[_Bits, _Mask | None]:
        """See `PixelSource`."""
        if min(row, column) < 0 or row + height > self.grid.height:
            raise InternalError(f"{self.name}: rows {row}..{row + height - 1} of its mask")
        bits = self._burnt()[row : row + height, column : column + width].copy()
        if self._measured is None:
            return bits, None
        return bits, self._measured.read(row, column, height, width)[1]

    def close(self) -> None:
        self._bits = None
        if self._measured is not None:
            self._measured.close()


def _mask_grid(grid: SourceGrid) -> SourceGrid:
    """The grid itself where its pixels are 60 m or more, else one of 60 m over it."""
    a, b, c, d, e, f = grid.transform
    step = max(1, round(POLYGON_PIXEL_M / math.hypot(a, d)))
    height, width = -(-grid.height // step), -(-grid.width // step)
    return SourceGrid(
        grid.crs_wkt,
        (a * step, b * step, c, d * step, e * step, f),
        height,
        width,
        min(height, BLOCK_PX),
        min(width, BLOCK_PX),
    )


def _burn(polygons: Iterable[list[_Ring]], grid: SourceGrid) -> _Bits:
    with rasterio.Env():
        burnt: _Bits = rasterize(
            [({"type": "Polygon", "coordinates": rings}, 1) for rings in polygons],
            out_shape=(grid.height, grid.width),
            transform=rasterio.Affine(*grid.transform),
            dtype="uint8",
        )
    return burnt


def read_cloud_polygons(source: Source, member: str, like: PixelSource) -> CloudPolygons:
    """The polygons of an MSK_CLOUDS_B00.gml; a file without any says that there is no cloud.

    Raises:
        UnreadableSourceError: not such a document, or in another CRS than the images.
    """
    shown = source.shown(member)
    root = parse_xml(source, member)
    if next(elements(root, "maskMembers"), None) is None:
        raise UnreadableSourceError(f"{shown}: no maskMembers: expected a mask in GML")
    for envelope in elements(root, "Envelope"):
        _check_crs(shown, envelope.get("srsName", ""), like.grid.crs_wkt)
    shapes = []
    for feature in elements(root, "MaskFeature"):
        kind = next((one.text or "" for one in elements(feature, "maskType")), "").strip()
        if kind not in _TYPES:
            raise UnreadableSourceError(
                f"{shown}: a mask of type {kind[:40]!r}: expected one of {', '.join(_TYPES)}"
            )
        for polygon in elements(feature, "Polygon"):
            outer = [ring for one in elements(polygon, "exterior") for ring in _rings(shown, one)]
            inner = [ring for one in elements(polygon, "interior") for ring in _rings(shown, one)]
            if len(outer) != 1:
                raise UnreadableSourceError(
                    f"{shown}: a polygon with {len(outer)} outer rings: expected one"
                )
            shapes.append((_TYPES[kind], outer + inner))
    return CloudPolygons(shown, shapes, like)


def _check_crs(shown: str, name: str, wkt: str) -> None:
    match = _CODE.search(name)
    try:
        expected = CRS.from_wkt(wkt).to_epsg()
    except CRSError:
        expected = None
    if match is None or (expected is not None and int(match[1]) != expected):
        raise UnreadableSourceError(
            f"{shown}: its CRS is {name[:80]!r}: expected that of the product's images"
        )


def _rings(shown: str, boundary: Element) -> list[_Ring]:
    rings = []
    for positions in elements(boundary, "posList"):
        try:
            numbers = [float(word) for word in (positions.text or "").split()]
            dimension = int(positions.get("srsDimension", "2"))
        except ValueError as error:
            raise UnreadableSourceError(f"{shown}: a ring's posList: {error}") from error
        if (
            dimension not in {2, 3}
            or len(numbers) < 4 * dimension
            or len(numbers) % dimension
            or not all(abs(number) < COORDINATE_M_MAX for number in numbers)
        ):
            raise UnreadableSourceError(
                f"{shown}: a ring of {len(numbers)} numbers in {dimension} dimensions: expected"
                " at least four points of two or three, in metres"
            )
        rings.append(list(zip(numbers[::dimension], numbers[1::dimension], strict=True)))
    return rings


def on_grid(grid: SourceGrid, bands: Iterable[PixelSource]) -> PixelSource | None:
    """A band on exactly that grid, if there is one."""
    return next(
        (
            band
            for band in bands
            if (band.grid.transform, band.grid.height, band.grid.width)
            == (grid.transform, grid.height, grid.width)
        ),
        None,
    )


def coarsest(bands: Iterable[PixelSource]) -> PixelSource:
    """The band of the largest pixels; the first of those."""
    return max(bands, key=lambda band: math.hypot(band.grid.transform[0], band.grid.transform[3]))
