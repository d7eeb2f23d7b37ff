"""A tile's stored blocks into arrays: the one place where pixels are read.

The hot path is one `read_blocks` call for all that is asked of a tile (the backend fetches
neighbouring blocks in one pread) and one decode, straight into the array that is returned.
Everything else (another pixel size, another dtype, clouds, radiometry) is a step aside from
it that only those who ask for it pay.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from affine import Affine

from geostore.compute.clouds import cloud_mask as find_clouds
from geostore.compute.resample import ResampleMethod, nearest, resample
from geostore.errors import InvalidInputError, NotFoundError
from geostore.tiles import decode_into
from geostore.types import (
    BandInfo,
    BandRole,
    CloudLayer,
    ResolutionGroup,
    TileBlocks,
    TileRow,
    TileSchema,
)
from geostore.wrangle.clouds import find_cloud_layer
from geostore.wrangle.lattice import cell_group, cell_transform, check_resolution
from geostore.wrangle.radiometry import AS_STORED, Radiometry, common_dtype

if TYPE_CHECKING:
    from geostore.backends import Backend
    from geostore.types import TileDetails

__all__ = [
    "BandPlan",
    "Fetched",
    "Planes",
    "StoredTile",
    "TileArray",
    "blocks_of",
    "in_threads",
    "parse_bands",
    "plan_bands",
    "read_into",
    "read_tile",
    "target_group",
    "unknown_name",
    "with_clouds",
]

_Array = npt.NDArray[Any]
_Mask = npt.NDArray[np.bool_]
_In = TypeVar("_In")
_Out = TypeVar("_Out")

Planes: TypeAlias = Sequence[_Array] | _Array
"""One (height, width) array a band: a sequence of them, or one array of three axes."""


@dataclass(frozen=True, slots=True, eq=False)
class TileArray:
    """Pixels of one tile, or of a mosaic, with their place. The arrays are the caller's."""

    data: _Array
    """(bands, height, width)."""
    mask: _Mask
    """The same shape; True where valid. Elsewhere `data` holds the band's fill (its nodata,
    else 0), or NaN of reflectances."""
    crs: str
    """`EPSG:4326` (x, y are longitude, latitude) or `EPSG:3857`."""
    transform: Affine
    """Pixel (column, row) to x, y, as rasterio has it: (0, 0) is the upper-left corner."""
    bands: tuple[str, ...]
    """As they were asked for."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in `crs` units."""
        height, width = self.data.shape[-2:]
        west, north = self.transform.c, self.transform.f
        return west, north + height * self.transform.e, west + width * self.transform.a, north

    def masked(self) -> np.ma.MaskedArray[Any, Any]:
        """The same pixels as a numpy masked array (whose own mask is True where not valid)."""
        return np.ma.MaskedArray(self.data, mask=~self.mask)

    def __repr__(self) -> str:
        shape = " x ".join(str(size) for size in self.data.shape)
        valid = 100.0 * float(self.mask.mean()) if self.mask.size else 0.0
        return (
            f"TileArray({shape} {self.data.dtype}, bands {', '.join(self.bands)},"
            f" {valid:.1f} % valid, {self.crs})"
        )


@dataclass(frozen=True, slots=True)
class BandPlan:
    """Where one band of a schema is stored."""

    name: str
    """As it was asked for."""
    group_index: int
    band_index: int
    info: BandInfo
    shape: tuple[int, int]
    """(height, width) as stored."""
    data_blocks: range
    """Entries of the block table."""
    mask_blocks: range

    @property
    def method(self) -> ResampleMethod:
        """How the band goes to coarser pixels: codes and flags have no mean."""
        exact = (BandRole.CLASS, BandRole.QUALITY)
        return "nearest" if self.info.role in exact else "mean"


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """A message that says what is known, the likeliest meant first.

    >>> unknown_name("band", "B4", ["B03", "B04"])
    "band 'B4' is not known; did you mean 'B04'? Known: B03, B04"
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if not close:
        folded = {other.lower(): other for other in names}
        close = [folded[str(name).lower()]] if str(name).lower() in folded else []
    hint = f"; did you mean {close[0]!r}?" if close else "."
    shown = ", ".join(names[:60]) + (", ..." if len(names) > 60 else "")
    return f"{what} {str(name)[:80]!r} is not known{hint} Known: {shown or 'none'}"


def parse_bands(bands: Any) -> tuple[str, ...] | None:
    """Band names as a tuple; one name may come as plain text; None stays None (all).

    Raises:
        InvalidInputError: not names, none at all, or one twice.
    """
    if bands is None:
        return None
    try:
        names = (bands,) if isinstance(bands, str) else tuple(bands)
    except TypeError:
        names = ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidInputError(f"bands {bands!r}: expected one or more band names")
    if len(set(names)) < len(names):
        raise InvalidInputError(f"bands {', '.join(names)}: a name is given twice")
    return names


_PLANS_MAX = 256
_plans: dict[tuple[str, tuple[str, ...] | None], tuple[BandPlan, ...]] = {}


def plan_bands(schema: TileSchema, names: tuple[str, ...] | None) -> tuple[BandPlan, ...]:
    """Where the named bands (all, in stored order, for None) of a schema are stored.

    Remembered, since tiles of a scene share a schema and a read should cost a look-up.

    Raises:
        NotFoundError: a name that no band answers to; names the known ones.
    """
    cached = _plans.get((schema.digest, names))
    if cached is not None:
        return cached
    plans = []
    for name in names or tuple(band.name for band in schema.bands):
        position = schema.find_band(name)
        if position is None:
            raise NotFoundError(unknown_name("band", name, schema.names))
        group = schema.groups[position[0]]
        plans.append(
            BandPlan(
                name=name,
                group_index=position[0],
                band_index=position[1],
                info=group.bands[position[1]],
                shape=(group.height, group.width),
                data_blocks=schema.block_range(*position),
                mask_blocks=schema.block_range(*position, mask=True),
            )
        )
    if len(_plans) >= _PLANS_MAX:
        _plans.clear()
    _plans[schema.digest, names] = tuple(plans)
    return tuple(plans)


def target_group(
    backend: Backend, row: TileRow, plans: Sequence[BandPlan], resolution: float | None
) -> ResolutionGroup:
    """The cell's shape for a read: the finest group among the bands, or `resolution`'s.

    Raises:
        InvalidInputError: a resolution that is no positive number, or far too fine.
    """
    groups = row.schema.groups
    if resolution is None:
        finest = groups[min(plan.group_index for plan in plans)]
        return ResolutionGroup(finest.resolution_m, finest.height, finest.width)
    wanted = check_resolution(resolution)
    for group in groups:
        if group.resolution_m == wanted:
            return ResolutionGroup(group.resolution_m, group.height, group.width)
    # The dataset's groups, not the tile's: a scene that lacks the 10 m bands must still
    # answer a read at 10 m on the 10 m lattice.
    return cell_group(backend.dataset(row.dataset).groups, wanted)


def _is_valid_everywhere(table: npt.NDArray[np.void]) -> bool:
    """Whether a mask's table rows say that every block is uniformly valid."""
    return all(length == 0 and fill == 1 for _, length, fill, _ in table.tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What is needed of a tile to read some of its bands, before anything is decoded."""

    blocks: TileBlocks
    clouds: CloudLayer | None
    """What tells its clouds, where they are to be left out and there is any such thing."""


def blocks_of(plans: Iterable[BandPlan]) -> list[int]:
    """The block table's entries of bands: all their data, then all their masks."""
    wanted: dict[int, None] = {}
    plans = list(plans)
    for plan in plans:
        wanted.update(dict.fromkeys(plan.data_blocks))
    for plan in plans:
        wanted.update(dict.fromkeys(plan.mask_blocks))
    return list(wanted)


def with_clouds(
    row: TileRow, plans: Sequence[BandPlan], clouds: CloudLayer | None
) -> list[BandPlan]:
    """The bands to fetch: those asked for, and last the one that tells clouds."""
    if clouds is None:
        return list(plans)
    return [*plans, *plan_bands(row.schema, (clouds.band,))]


def _fetch(
    backend: Backend,
    row: TileRow,
    plans: Sequence[BandPlan],
    details: TileDetails | None,
    *,
    cloud_mask: bool,
) -> Fetched:
    """One tile's blocks, with as few calls as can be."""
    clouds: CloudLayer | None = None
    if cloud_mask:
        details = details or backend.details(row.key)
        clouds = find_cloud_layer(row, details, backend.dataset(row.dataset).cloud_rule)
    indices = blocks_of(with_clouds(row, plans, clouds))
    if details is None:
        (blocks,) = backend.read_tiles([(row.key, indices)])
    else:
        blocks = TileBlocks(
            key=row.key,
            indices=tuple(indices),
            data=tuple(backend.read_blocks(row.key, indices)),
            table=details.blocks[indices],
        )
    return Fetched(blocks=blocks, clouds=clouds)


class StoredTile:
    """The fetched blocks of one tile: decodes single bands."""

    def __init__(self, row: TileRow, blocks: TileBlocks) -> None:
        self.schema = row.schema
        self._blocks = blocks
        self._source = f"tile {row.dataset}/{row.geocode}/{row.scene}"

    def _decode(self, plan: BandPlan, entries: range, out: _Array, *, mask: bool) -> None:
        blocks, table = self._blocks.entries(entries)
        decode_into(
            self.schema,
            plan.group_index,
            plan.band_index,
            blocks,
            table,
            out,
            mask=mask,
            source=self._source,
        )

    def data(self, plan: BandPlan, out: _Array) -> None:
        self._decode(plan, plan.data_blocks, out, mask=False)

    def mask_identity(self, plan: BandPlan) -> bytes:
        """The same for bands of a group whose stored masks are the same."""
        table = self._blocks.entries(plan.mask_blocks)[1]
        return b"".join(table[name].tobytes() for name in ("length", "fill", "checksum"))

    def valid(self, plan: BandPlan, out: _Mask | None = None) -> _Mask | None:
        """The band's validity as stored, in `out` where given; None where all is valid."""
        entries = plan.mask_blocks
        if _is_valid_everywhere(self._blocks.entries(entries)[1]):
            if out is not None:
                out[...] = True
            return None
        if out is None:
            out = np.empty(plan.shape, np.bool_)
        self._decode(plan, entries, out, mask=True)
        return out


def _find_clouds(tile: StoredTile, source: CloudLayer, plan: BandPlan) -> _Mask:
    """Where a tile's cloud layer says cloud, at the layer's own pixels."""
    layer = np.empty(plan.shape, plan.info.dtype)
    tile.data(plan, layer)
    clouds = find_clouds(layer, source)
    valid = tile.valid(plan)
    return clouds if valid is None else clouds & valid


def read_into(
    backend: Backend,
    row: TileRow,
    plans: Sequence[BandPlan],
    outs: Planes,
    masks: Planes,
    *,
    radiometry: Radiometry = AS_STORED,
    cloud_mask: bool = False,
    avoid: Sequence[float | None] | None = None,
    details: TileDetails | None = None,
    fetched: Fetched | None = None,
) -> None:
    """Reads bands of one tile into given arrays.

    Args:
        backend: where the tile is.
        row: the tile.
        plans: the bands, from the tile's own schema.
        outs: one (height, width) array a band, any strides; all of one shape, which fixes
            the pixel size; dtypes that hold what the read gives (`radiometry.dtype`).
        masks: one bool array a band, of the same shape: True where valid.
        radiometry: what to do to the numbers.
        cloud_mask: make pixels that the dataset calls cloud invalid.
        avoid: see `Radiometry.apply`; one a band.
        details: the tile's, where the caller has them.
        fetched: the tile's blocks, where they were fetched ahead (`read_ahead`), for the
            same bands and `cloud_mask`.

    Raises:
        CorruptDataError: stored bytes fail their checksum.
        NotFoundError: the tile is gone.
        InvalidInputError: `cloud_mask` where nothing tells clouds.
    """
    if fetched is None:
        fetched = _fetch(backend, row, plans, details, cloud_mask=cloud_mask)
    tile = StoredTile(row, fetched.blocks)
    clouds: _Mask | None = None
    if fetched.clouds is not None:
        layer = with_clouds(row, (), fetched.clouds)[0]
        clouds = nearest(_find_clouds(tile, fetched.clouds, layer), outs[0].shape)
    for index, (plan, out, mask) in enumerate(zip(plans, outs, masks, strict=True)):
        if out.shape == plan.shape and out.dtype == plan.info.dtype:
            tile.data(plan, out)
            valid = tile.valid(plan, mask)
            if radiometry.changes(plan.info):
                unwanted = None if avoid is None else avoid[index]
                radiometry.apply(out, valid, plan.info, avoid=unwanted)
        else:
            native = np.empty(plan.shape, plan.info.dtype)
            tile.data(plan, native)
            data, valid = resample(
                native,
                tile.valid(plan),
                out.shape,
                method=plan.method,
                fill=plan.info.fill,
            )
            unwanted = None if avoid is None else avoid[index]
            out[...] = radiometry.apply(data, valid, plan.info, avoid=unwanted)
            mask[...] = True if valid is None else valid
        if clouds is not None:
            mask[clouds] = False
            out[clouds] = np.nan if radiometry.reflectance else plan.info.fill


def _check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not isinstance(out, np.ndarray):
        raise InvalidInputError(f"out is a {type(out).__name__}: expected a numpy array")
    if out.shape != shape or out.dtype != dtype or not out.flags.writeable:
        kind = "" if out.flags.writeable else ", read-only"
        raise InvalidInputError(
            f"out is {out.shape} {out.dtype}{kind}: expected a writable array {shape} {dtype}"
        )


def read_tile(
    backend: Backend,
    row: TileRow,
    bands: str | Iterable[str] | None = None,
    resolution: float | None = None,
    *,
    cloud_mask: bool = False,
    harmonize: bool = False,
    reflectance: bool = False,
    out: _Array | None = None,
    details: TileDetails | None = None,
    fetched: Fetched | None = None,
) -> TileArray:
    """Pixels of one tile; what `Tile.read` does. `details`: the tile's, where they are known;
    `fetched`: its blocks.

    Bands of another group than the answer's: coarser ones are repeated; finer ones are
    averaged over their valid pixels, except class and quality bands, which are always the
    pixel under the centre.

    Raises:
        NotFoundError: an unknown band, or the tile is gone.
        InvalidInputError: bands of dtypes that do not go together; a wrong `out`.
        CorruptDataError: stored bytes fail their checksum.
    """
    names = parse_bands(bands)
    plans = plan_bands(row.schema, names)
    group = target_group(backend, row, plans, resolution)
    radiometry = Radiometry(harmonize=harmonize, reflectance=reflectance)
    dtypes = {radiometry.dtype(plan.info) for plan in plans}
    dtype = dtypes.pop() if len(dtypes) == 1 else common_dtype(dtypes, "the bands")
    shape = (len(plans), group.height, group.width)
    if out is None:
        out = np.empty(shape, dtype)
    else:
        _check_out(out, shape, dtype)
    mask = np.empty(shape, np.bool_)
    read_into(
        backend,
        row,
        plans,
        out,
        mask,
        radiometry=radiometry,
        cloud_mask=cloud_mask,
        details=details,
        fetched=fetched,
    )
    return TileArray(
        data=out,
        mask=mask,
        crs="EPSG:4326" if row.schema.scheme == "geohash" else "EPSG:3857",
        transform=cell_transform(row.schema.scheme, row.geocode, shape[1:]),
        bands=tuple(plan.name for plan in plans),
    )


def in_threads(
    function: Callable[[_In], _Out],
    items: Iterable[_In],
    *,
    workers: int | None = None,
) -> Iterator[_Out]:
    """`function` of each item, in order, computed by threads that run a little ahead.

    At most twice as many items are under way or waiting as there are workers, however slow
    the caller is. A failure is raised in its place; what was not begun is dropped.

    Args:
        function: may run in several threads at once.
        items: taken from the caller's thread.
        workers: threads; twice the processors, at most 16, where None.
    """
    workers = workers or min(16, 2 * (cpu_count() or 1))
    waiting: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="geostore-read") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
