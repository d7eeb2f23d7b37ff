"""Where on the globe a raster lies: an outline in longitude and latitude, never too small.

Corners are not enough: an edge that is straight in a projection bends in longitude and
latitude, rasters cross the antimeridian or hold a pole, and some grids (geostationary, whole
globes) have pixels that lie nowhere. The outline may be larger than the raster by a few
pixels; a cell that it names in vain makes no tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Transformer

from geostore.errors import UnreadableSourceError
from geostore.grid import METRES_PER_DEGREE, Region
from geostore.raster.control_points import ControlFit, fit_control_points
from geostore.raster.positions import native_pixel_size_m
from geostore.raster.projection import parse_crs, project, transformer
from geostore.raster.source import SourceGrid

__all__ = ["footprint"]

Floats = npt.NDArray[np.float64]

MARGIN_PX = 2.0
"""How far outside the raster the outline runs."""
EDGE_POINTS_MIN = 64
EDGE_POINTS_MAX = 4096
CHORD_ERROR_MAX_PX = 1.0
"""Half of MARGIN_PX: straight lines between the points stay outside the raster."""

STRAIGHT_DEG = 1e-9

MESH_QUADS = 256
BISECTIONS = 24
MASK_WIDTH, MASK_HEIGHT = 2048, 1024


@dataclass(frozen=True)
class _Placed:
    """A grid with its way to the globe."""

    grid: SourceGrid
    crs: CRS
    to_globe: Transformer
    from_globe: Transformer
    pixel_deg: float
    """The shorter side of a pixel, degrees of latitude."""
    fit: ControlFit | None
    """What places the pixels in place of a transform."""

    @classmethod
    def of(cls, grid: SourceGrid) -> _Placed:
        crs = parse_crs(grid.crs_wkt)
        to_globe = transformer(grid.crs_wkt, "EPSG:4326")
        from_globe = transformer("EPSG:4326", grid.crs_wkt)
        fit = None
        if grid.control:
            fit = fit_control_points(grid.control, grid.crs_wkt, grid.height, grid.width)
        pixel_deg = native_pixel_size_m(grid) / METRES_PER_DEGREE
        return cls(grid, crs, to_globe, from_globe, pixel_deg, fit)

    def lonlat(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Longitudes and latitudes, degrees; both NaN where PROJ finds no place."""
        if self.fit is not None:
            x, y = self.fit.to_ground(columns, rows)
        else:
            a, b, c, d, e, f = self.grid.transform
            x = a * columns + b * rows + c
            y = d * columns + e * rows + f
        if self.crs.is_geographic:
            # The margin may reach past a pole; latitudes there are not places.
            quarter = 90.0 * np.radians(1.0) / self.crs.axis_info[0].unit_conversion_factor
            y = np.clip(y, -quarter, quarter)
        lon, lat = project(self.to_globe, x, y)
        nowhere = ~(np.isfinite(lon) & (np.abs(lat) <= 90.0 + 1e-9))
        lon[nowhere] = np.nan
        lat[nowhere] = np.nan
        return lon, np.clip(lat, -90.0, 90.0)

    def pole_pixel(self, latitude: float) -> tuple[float, float] | None:
        """(column, row) of a pole, if the raster (with its margin) has it; else None."""
        if self.crs.is_geographic:
            return None  # the pole is a line there, and never inside
        x, y = self.from_globe.transform(0.0, latitude)
        if not (np.isfinite(x) and np.isfinite(y)):
            return None
        column, row = self._pixel(x, y)
        inside = (
            -MARGIN_PX <= column <= self.grid.width + MARGIN_PX
            and -MARGIN_PX <= row <= self.grid.height + MARGIN_PX
        )
        # Some projections send the pole somewhere from where there is no way back.
        back = self.to_globe.transform(x, y)[1]
        return (column, row) if inside and abs(back - latitude) < 1e-6 else None

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        if self.fit is not None:
            columns, rows = self.fit.to_pixels(np.array([x]), np.array([y]))
            return float(columns[0]), float(rows[0])
        a, b, c, d, e, f = self.grid.transform
        determinant = a * e - b * d
        column = (e * (x - c) - b * (y - f)) / determinant
        row = (a * (y - f) - d * (x - c)) / determinant
        return column, row


def footprint(grid: SourceGrid) -> Region:
    """The place that a raster covers, at least: each of its pixels lies inside.

    Edges are followed with a margin of two pixels at 64 points or more, until straight lines
    between points leave them by less than a pixel. Across the antimeridian longitudes go on
    past 180; a raster that holds a pole covers all longitudes around it. Where edges lie
    nowhere (geostationary disks, whole globes), or bend without end, the inside is sampled.

    Raises:
        UnreadableSourceError: PROJ cannot use the CRS, or places no pixel on the globe.
    """
    placed = _Placed.of(grid)
    outline = _box(placed)
    if outline is None:
        outline = _outline(placed)
    if outline is None:
        outline = _sampled(placed)
    return Region.from_geometry(outline)


def _ring(grid: SourceGrid, points: int, margin_px: float) -> tuple[Floats, Floats]:
    """Columns and rows around the raster, `points` an edge, closed."""
    along = np.arange(points) / points
    left, right = -margin_px, grid.width + margin_px
    top, bottom = -margin_px, grid.height + margin_px
    across, down = left + along * (right - left), top + along * (bottom - top)
    back, up = right - along * (right - left), bottom - along * (bottom - top)
    columns = [across, np.full(points, right), back, np.full(points, left), np.array([left])]
    rows = [np.full(points, top), down, np.full(points, bottom), up, np.array([top])]
    return np.concatenate(columns), np.concatenate(rows)


def _box(placed: _Placed) -> Any | None:
    """The raster's exact box, where its edges are meridians and parallels; else None.

    So it is in geographic and Mercator CRSs. Exact, since a margin would make a Mercator
    raster of the whole globe reach beyond the end of the quadtiles.
    """
    points = EDGE_POINTS_MIN
    lon, lat = placed.lonlat(*_ring(placed.grid, points, 0.0))
    if np.isnan(lon).any():
        return None
    lon = np.unwrap(lon, period=360.0)
    edges = [slice(start, start + points + 1) for start in range(0, 4 * points, points)]
    # Pixels may be turned by quarters: either pair of edges may be the parallels.
    for parallels, meridians in ((edges[::2], edges[1::2]), (edges[1::2], edges[::2])):
        if (
            max(np.ptp(lat[edge]) for edge in parallels) <= STRAIGHT_DEG
            and max(np.ptp(lon[edge]) for edge in meridians) <= STRAIGHT_DEG
        ):
            if np.ptp(lon) >= 360.0 - STRAIGHT_DEG:
                return shapely.box(-180.0, lat.min(), 180.0, lat.max())
            return shapely.box(lon.min(), lat.min(), lon.max(), lat.max())
    return None


def _outline(placed: _Placed) -> Any | None:
    """The outline as a shapely polygon in unwrapped degrees; None where edges do not do."""
    points = EDGE_POINTS_MIN
    while points <= EDGE_POINTS_MAX:
        # Every second point only checks how far the chord between its neighbours is off.
        lon, lat = placed.lonlat(*_ring(placed.grid, 2 * points, MARGIN_PX))
        if np.isnan(lon).any():
            return None
        lon = np.unwrap(lon, period=360.0)
        d_lon = (lon[:-2:2] + lon[2::2]) / 2 - lon[1::2]
        d_lat = (lat[:-2:2] + lat[2::2]) / 2 - lat[1::2]
        error = np.hypot(d_lon * np.cos(np.radians(lat[1::2])), d_lat).max()
        if error <= CHORD_ERROR_MAX_PX * placed.pixel_deg:
            return _polygon(placed, lon, lat)
        points *= 2
    return None


def _polygon(placed: _Placed, lon: Floats, lat: Floats) -> Any | None:
    turns = round(float(lon[-1] - lon[0]) / 360.0)
    poles = [latitude for latitude in (-90.0, 90.0) if placed.pole_pixel(latitude) is not None]
    if turns == 0 and not poles:
        if np.ptp(lon) >= 360.0:
            return shapely.box(-180.0, lat.min(), 180.0, lat.max())
        return shapely.Polygon(np.column_stack([lon, lat]))
    if abs(turns) != 1 or len(poles) != 1:
        return None
    # Once around one pole: the outline's path, closed along that pole.
    path = np.column_stack([lon, lat])
    pole = [(lon[-1], poles[0]), (lon[0], poles[0])]
    return shapely.Polygon(np.concatenate([path, pole]))


def _sampled(placed: _Placed) -> Any:
    """The outline from a mesh of points over the whole raster, as a shapely geometry.

    Each quad of the mesh with a point on the globe gives a box of longitude and latitude
    around its points, half as large again. Between a point on the globe and one that lies
    nowhere, bisection finds where the globe ends, since it bends away without limit there.
    """
    grid = placed.grid
    columns = np.linspace(0.0, grid.width, min(MESH_QUADS, grid.width) + 1)
    rows = np.linspace(0.0, grid.height, min(MESH_QUADS, grid.height) + 1)
    mesh_columns, mesh_rows = np.meshgrid(columns, rows)
    lon, lat = placed.lonlat(mesh_columns.ravel(), mesh_rows.ravel())
    lon, lat = lon.reshape(mesh_columns.shape), lat.reshape(mesh_columns.shape)
    if np.isnan(lon).all():
        raise UnreadableSourceError(
            f"PROJ places no pixel of a raster of {grid.height} x {grid.width} pixels on the"
            f" globe; transform {grid.transform}"
        )
    limb_right = _limb(placed, mesh_columns, mesh_rows, lon, axis=1)
    limb_down = _limb(placed, mesh_columns, mesh_rows, lon, axis=0)
    quads = [(part[:-1, :-1], part[1:, :-1], part[1:, 1:], part[:-1, 1:]) for part in (lon, lat)]
    edges = [
        (right[:-1], right[1:], down[:, :-1], down[:, 1:])
        for right, down in zip(limb_right, limb_down, strict=True)
    ]
    quad_lon = np.stack([*quads[0], *edges[0]])
    quad_lat = np.stack([*quads[1], *edges[1]])
    boxes = _boxes(quad_lon.reshape(8, -1), quad_lat.reshape(8, -1), placed.pixel_deg)
    boxes += _pole_boxes(placed, lat, columns, rows)
    return _union(np.array(boxes))


def _limb(
    placed: _Placed, columns: Floats, rows: Floats, lon: Floats, *, axis: int
) -> tuple[Floats, Floats]:
    """For each mesh edge along `axis` that leaves the globe, where it does; NaN elsewhere."""
    first = (slice(None), slice(None, -1)) if axis == 1 else (slice(None, -1), slice(None))
    second = (slice(None), slice(1, None)) if axis == 1 else (slice(1, None), slice(None))
    on_first, on_second = ~np.isnan(lon[first]), ~np.isnan(lon[second])
    limb_lon = np.full(on_first.shape, np.nan)
    limb_lat = np.full(on_first.shape, np.nan)
    leaves = on_first != on_second
    if leaves.any():
        inner = on_first[leaves]
        near_column = np.where(inner, columns[first][leaves], columns[second][leaves])
        near_row = np.where(inner, rows[first][leaves], rows[second][leaves])
        far_column = np.where(inner, columns[second][leaves], columns[first][leaves])
        far_row = np.where(inner, rows[second][leaves], rows[first][leaves])
        for _ in range(BISECTIONS):
            column, row = (near_column + far_column) / 2, (near_row + far_row) / 2
            on = ~np.isnan(placed.lonlat(column, row)[0])
            near_column, near_row = np.where(on, column, near_column), np.where(on, row, near_row)
            far_column, far_row = np.where(on, far_column, column), np.where(on, far_row, row)
        limb_lon[leaves], limb_lat[leaves] = placed.lonlat(near_column, near_row)
    return limb_lon, limb_lat


def _boxes(lon: Floats, lat: Floats, margin_deg: float) -> list[tuple[float, float, float, float]]:
    """West, south, east, north of the points of each quad, (8, n), NaN where there is none."""
    some = ~np.isnan(lon).all(axis=0)
    lon, lat = lon[:, some], lat[:, some]
    # Longitudes as steps from one of the quad's own points: no jump at the antimeridian.
    start = np.take_along_axis(lon, np.argmax(~np.isnan(lon), axis=0)[None], axis=0)
    steps = (lon - start + 180.0) % 360.0 - 180.0
    low, high = np.nanmin(steps, axis=0), np.nanmax(steps, axis=0)
    south, north = np.nanmin(lat, axis=0), np.nanmax(lat, axis=0)
    margin_lat = (north - south) / 2 + MARGIN_PX * margin_deg
    nearest_pole = np.minimum(89.9, np.maximum(np.abs(south), np.abs(north)))
    margin_lon = (high - low) / 2 + MARGIN_PX * margin_deg / np.cos(np.radians(nearest_pole))
    west, east = start[0] + low - margin_lon, start[0] + high + margin_lon
    everywhere = east - west >= 360.0
    west, east = np.where(everywhere, -180.0, west), np.where(everywhere, 180.0, east)
    bounds = np.column_stack([west, south - margin_lat, east, north + margin_lat])
    return [tuple(box) for box in bounds.tolist()]


def _pole_boxes(
    placed: _Placed, lat: Floats, columns: Floats, rows: Floats
) -> list[tuple[float, float, float, float]]:
    """All longitudes from the mesh points around each pole that the raster has, to it."""
    boxes = []
    for latitude in (-90.0, 90.0):
        pixel = placed.pole_pixel(latitude)
        if pixel is None:
            continue
        column = int(np.clip(np.searchsorted(columns, pixel[0]), 1, len(columns) - 1))
        row = int(np.clip(np.searchsorted(rows, pixel[1]), 1, len(rows) - 1))
        around = lat[max(0, row - 2) : row + 2, max(0, column - 2) : column + 2]
        around = around[~np.isnan(around)]
        if len(around):
            ends = sorted((latitude, float(around.min() if latitude > 0 else around.max())))
            boxes.append((-180.0, ends[0], 180.0, ends[1]))
    return boxes


def _union(boxes: Floats) -> Any:
    """A geometry that holds all boxes (n, 4: west, south, east, north), in few pieces.

    Boxes are painted on a mask over the latitudes they take, and the mask's runs joined:
    a union of a quarter million boxes themselves would take a minute.
    """
    south, north = max(-90.0, boxes[:, 1].min()), min(90.0, boxes[:, 3].max())
    step_lon, step_lat = 360.0 / MASK_WIDTH, max(north - south, 1e-9) / MASK_HEIGHT
    bottom = np.clip(np.floor((boxes[:, 1] - south) / step_lat), 0, MASK_HEIGHT - 1).astype(int)
    top = np.clip(np.ceil((boxes[:, 3] - south) / step_lat), 1, MASK_HEIGHT).astype(int)
    shift = np.floor((boxes[:, 0] + 180.0) / 360.0) * 360.0
    left = np.floor((boxes[:, 0] - shift + 180.0) / step_lon).astype(int)
    right = np.ceil((boxes[:, 2] - shift + 180.0) / step_lon).astype(int)
    # Corner counts of a mask twice around the globe, summed up: how many boxes lie there.
    counts = np.zeros((MASK_HEIGHT + 1, 2 * MASK_WIDTH + 1), dtype=np.int32)
    left, right = np.clip(left, 0, MASK_WIDTH - 1), np.clip(right, 1, 2 * MASK_WIDTH)
    for at_row, at_column, sign in (
        (bottom, left, 1),
        (bottom, right, -1),
        (top, left, -1),
        (top, right, 1),
    ):
        np.add.at(counts, (at_row, at_column), sign)
    painted = counts.cumsum(axis=0).cumsum(axis=1)[:MASK_HEIGHT, : 2 * MASK_WIDTH] > 0
    mask = painted[:, :MASK_WIDTH] | painted[:, MASK_WIDTH:]
    pieces = []
    for row, line in enumerate(mask):
        ends = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
        for start, stop in ends.reshape(-1, 2).tolist():
            pieces.append(
                shapely.box(
                    start * step_lon - 180.0,
                    south + row * step_lat,
                    stop * step_lon - 180.0,
                    min(90.0, south + (row + 1) * step_lat),
                )
            )
    return shapely.union_all(pieces)
