"""One tile: what is known of it, and its pixels on demand."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from geostore.api import keywords

if TYPE_CHECKING:
    import numpy.typing as npt

    from geostore.backends import Backend
    from geostore.types import BandStatistics, BBox, TileDetails, TileRow, TileSchema
    from geostore.wrangle import TileArray

__all__ = ["Names", "Tile"]

Names: TypeAlias = "str | Iterable[str]"
"""One name, or several."""


class Tile:
    """One scene's pixels inside one cell, as a query found it. Pixels are read on demand."""

    __slots__ = ("_backend", "_kept_details", "_row")

    def __init__(self, backend: Backend, row: TileRow) -> None:
        self._backend = backend
        self._row = row
        self._kept_details: TileDetails | None = None

    @property
    def _details(self) -> TileDetails:
        """Asked for once: a tile never changes."""
        if self._kept_details is None:
            self._kept_details = self._backend.details(self._row.key)
        return self._kept_details

    @property
    def dataset(self) -> str:
        return self._row.dataset

    @property
    def geocode(self) -> str:
        return self._row.geocode

    @property
    def scene(self) -> str:
        return self._row.scene

    @property
    def time(self) -> datetime | None:
        """Start of the tile's interval, UTC; None where unknown."""
        return self._row.time

    @property
    def time_end(self) -> datetime | None:
        """End of the tile's interval, UTC; equal to `time` for an instant."""
        return self._row.time_end

    @property
    def platform(self) -> str | None:
        return self._row.platform

    @property
    def bands(self) -> tuple[str, ...]:
        """The provider's names, finest group first."""
        return self._row.bands

    @property
    def schema(self) -> TileSchema:
        """Resolution groups with their shapes and bands (dtype, nodata, scale, offset, role)."""
        return self._row.schema

    @property
    def common_names(self) -> dict[str, str]:
        """STAC common name to the provider's, of the bands that have one."""
        return {band.common_name: band.name for band in self._row.schema.bands if band.common_name}

    @property
    def pixel_coverage(self) -> float:
        """Percent of finest-grid pixels that are valid in every data band."""
        return self._row.pixel_coverage

    @property
    def cloud_cover(self) -> float | None:
        """Percent, by the dataset's cloud rule; None where nothing can tell."""
        return self._row.cloud_cover

    @property
    def bbox(self) -> BBox:
        """The cell's box, degrees."""
        from geostore.grid import scheme

        return scheme(self._row.schema.scheme).bounds(self._row.geocode)

    @property
    def bytes(self) -> int:
        """Size of the tile's file."""
        return self._row.bytes

    @property
    def nodes(self) -> tuple[str, ...]:
        return self._row.nodes

    @property
    def properties(self) -> dict[str, Any]:
        """The scene's own metadata (product id, baseline, ...); a copy."""
        return dict(self._details.properties)

    @property
    def statistics(self) -> dict[str, BandStatistics]:
        """By band: minimum, maximum, mean, 1st and 99th percentile of its valid pixels."""
        found = self._details.statistics
        return dict(zip(self.bands, found, strict=True))

    @property
    def cloud_histogram(self) -> tuple[int, ...] | None:
        """101 pixel counts by cloud likelihood in percent; None where there is none."""
        return self._details.cloud_histogram

    @property
    def cloud_method(self) -> str | None:
        """How cloud cover was told (`SCL 8,9,10`, `CLDPRB >= 40`)."""
        return self._details.cloud_method

    def read(
        self,
        bands: Names | None = None,
        resolution: float | None = None,
        *,
        cloud_mask: bool = False,
        harmonize: bool = False,
        reflectance: bool = False,
        out: npt.NDArray[Any] | None = None,
        **unknown: object,
    ) -> TileArray:
        """The tile's pixels on the cell's lattice.

        Bands of a coarser group than the answer's are repeated; those of a finer one are
        averaged over their valid pixels (class and quality bands: the pixel under the
        centre). Bands of different dtypes come as the dtype that holds all exactly.

        Args:
            bands: provider's or common names; all, in stored order, where left out.
            resolution: metres; the finest group among the bands where left out. Sizes that
                the dataset has no group for are served by whole factors of the finest.
            cloud_mask: make pixels invalid that the dataset's rule calls cloud.
            harmonize: add each band's offset in whole counts, so that scenes with different
                offsets (Sentinel-2 before and after baseline N0400) mean the same.
            reflectance: float32 stored * scale + offset, NaN where not valid.
            out: a writable array (bands, height, width) of the answer's dtype to read into.

        Returns:
            `.data` (bands, height, width), `.mask` of the same shape (True where valid),
            `.crs`, `.transform`, `.bands`. The arrays are the caller's.

        Raises:
            NotFoundError: an unknown band (names the known), or the tile was replaced.
            InvalidInputError: bands that no integer or float32 holds together; a wrong `out`.
            CorruptDataError: stored bytes fail their checksum.
        """
        from geostore.wrangle import read_tile

        keywords.refuse(unknown, Tile.read)
        return read_tile(
            self._backend,
            self._row,
            bands,
            resolution,
            cloud_mask=cloud_mask,
            harmonize=harmonize,
            reflectance=reflectance,
            out=out,
            details=self._details,
        )

    def to_json(self) -> dict[str, Any]:
        """The fields of the command line's jsonl, JSON-able, in its order."""
        return {
            "dataset": self.dataset,
            "geocode": self.geocode,
            "scene": self.scene,
            "time": keywords.time_text(self.time),
            "time_end": keywords.time_text(self.time_end),
            "platform": self.platform,
            "bands": list(self.bands),
            "pixel_coverage": self.pixel_coverage,
            "cloud_cover": self.cloud_cover,
            "bbox": list(self.bbox.as_tuple()),
            "bytes": self.bytes,
            "nodes": list(self.nodes),
        }

    def __repr__(self) -> str:
        cloud = "" if self.cloud_cover is None else f", {self.cloud_cover:.1f} % cloud"
        return (
            f"Tile({self.dataset} {self.geocode} {self.scene},"
            f" {keywords.time_text(self.time) or 'no time'}, {len(self.bands)} bands,"
            f" {self.pixel_coverage:.1f} % covered{cloud})"
        )
