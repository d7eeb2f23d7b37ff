"""Pixels and metadata to the bytes of a tile file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from geostore.errors import InvalidInputError
from geostore.grid import cell_window
from geostore.tiles.archive import Member, archive_parts, member_offsets
from geostore.tiles.codec import (
    COORDINATE_SETTINGS,
    CodecSettings,
    encode_block,
    settings_for,
)
from geostore.tiles.hierarchy import (
    BLOCK_TABLE,
    array_members,
    array_names,
    band_attributes,
    group_members,
    zarr_fill_value,
)
from geostore.tiles.layout import BandMask, TilePixels, block_windows, fill_value
from geostore.tiles.metadata import meta_to_json
from geostore.tiles.trailer import FORMAT_NAME, FORMAT_VERSION, TRAILER_BYTES, Span, Trailer
from geostore.types import (
    BLOCK_DTYPE,
    BandInfo,
    EncodedTile,
    GroupLayout,
    ResolutionGroup,
    TileMeta,
    TileSchema,
)

__all__ = ["encode_tile"]

_BOOL = np.dtype(np.bool_)


@dataclass(slots=True)
class _Draft:
    """A tile file in the making: members in file order, and where table rows come from."""

    head: list[Member] = field(default_factory=list)
    """All small JSON and the coordinates: what a reader wants first."""
    chunks: list[Member] = field(default_factory=list)
    stored: list[tuple[int, int]] = field(default_factory=list)
    """(row of the block table, position in `chunks`)."""


def encode_tile(meta: TileMeta, pixels: TilePixels) -> EncodedTile:
    """The tile file of `pixels`, in memory.

    Deterministic: the same input gives the same bytes (with one version of the codec
    libraries). Uses one thread; the time goes to the compressor, which releases the
    interpreter's lock. About twice the compressed size is held while it runs.

    Raises:
        InvalidInputError: pixels that do not fit `meta.schema`, metadata that is not JSON, or
            a tile too large for one file.
    """
    schema = meta.schema
    _check_pixels(schema, pixels)
    table = np.zeros(2 * schema.data_blocks_total, BLOCK_DTYPE)
    draft = _Draft()
    root = {FORMAT_NAME: {"version": FORMAT_VERSION, "meta": meta_to_json(meta)}}
    draft.head += group_members("", root)
    attributes = {"_ARRAY_DIMENSIONS": ["block", "field"], "fields": BLOCK_DTYPE.descr}
    shape = (len(table), BLOCK_DTYPE.itemsize // 8)
    draft.head += array_members(BLOCK_TABLE, np.dtype("<u8"), shape, shape, None, None, attributes)
    table_member = Member(f"{BLOCK_TABLE}/0.0", bytearray(table.nbytes))
    draft.head.append(table_member)
    for group_index in range(len(schema.groups)):
        _draft_group(draft, table, meta, pixels, group_index)

    members = draft.head + draft.chunks
    offsets = member_offsets(members)
    chunk_offsets = offsets[len(draft.head) :]
    for row, position in draft.stored:
        data = draft.chunks[position].data
        table[row] = (chunk_offsets[position], len(data), 0, xxhash.xxh3_64_intdigest(data))
    table_member.data[:] = table.tobytes()  # type: ignore[index]  # it is the bytearray above
    return _finish(meta, members, offsets, len(draft.head), table)


def _finish(
    meta: TileMeta,
    members: list[Member],
    offsets: list[int],
    head_count: int,
    table: npt.NDArray[np.void],
) -> EncodedTile:
    """The archive with its trailer, which tells where things are and sums up all bytes."""
    parts = archive_parts(members, TRAILER_BYTES)
    head = xxhash.xxh3_64()
    whole = xxhash.xxh3_128()
    for index, part in enumerate(parts):
        if index < 2 * head_count:  # a header and the data of each member
            head.update(part)
        whole.update(part)
    spans = {
        member.name: Span(offset, len(member.data))
        for member, offset in zip(members[:head_count], offsets, strict=False)
    }
    trailer = Trailer(
        meta=spans[".zattrs"],
        table=spans[f"{BLOCK_TABLE}/0.0"],
        head_bytes=offsets[head_count - 1] + len(members[head_count - 1].data),
        head_checksum=head.intdigest(),
        body_checksum=whole.intdigest(),
    ).to_bytes()
    whole.update(trailer)
    parts.append(trailer)
    return EncodedTile(meta=meta, payload=b"".join(parts), checksum=whole.hexdigest(), blocks=table)


def _check_pixels(schema: TileSchema, pixels: TilePixels) -> None:
    """Raises InvalidInputError unless every array has its group's shape and band's dtype."""
    bands = [len(group.bands) for group in schema.groups]
    for what, nested in (("data", pixels.data), ("masks", pixels.masks)):
        if [len(group) for group in nested] != bands:
            raise InvalidInputError(
                f"tile {what} for {[len(group) for group in nested]} bands by group,"
                f" expected {bands}"
            )
    for layout, arrays, masks in zip(schema.groups, pixels.data, pixels.masks, strict=True):
        shape = (layout.height, layout.width)
        for band, array, mask in zip(layout.bands, arrays, masks, strict=True):
            if array.shape != shape or array.dtype != np.dtype(band.dtype):
                raise InvalidInputError(
                    f"{layout.name}/{band.name}: pixels are {array.shape} {array.dtype},"
                    f" expected {shape} {band.dtype}"
                )
            if isinstance(mask, np.ndarray) and (mask.shape != shape or mask.dtype != _BOOL):
                raise InvalidInputError(
                    f"{layout.name}/{band.name}: mask is {mask.shape} {mask.dtype},"
                    f" expected {shape} bool"
                )


def _draft_group(
    draft: _Draft,
    table: npt.NDArray[np.void],
    meta: TileMeta,
    pixels: TilePixels,
    group_index: int,
) -> None:
    """Adds one resolution group: its JSON, coordinates, bands, then its masks."""
    schema = meta.schema
    layout = schema.groups[group_index]
    names = array_names(layout.bands)
    crs = _draft_coordinates(draft, meta, layout)
    valid = _plan_masks(pixels.masks[group_index], names)
    blocks = (layout.block_height, layout.block_width)
    shape = (layout.height, layout.width)
    for band_index, (band, name) in enumerate(zip(layout.bands, names, strict=True)):
        path = f"{layout.name}/{name}"
        dtype = np.dtype(band.dtype)
        draft.head += array_members(
            path,
            dtype.newbyteorder("<"),
            shape,
            blocks,
            settings_for(schema.codec, dtype.itemsize),
            zarr_fill_value(band),
            band_attributes(band, layout, crs, valid[band_index]),
        )
        rows = schema.block_range(group_index, band_index)
        _draft_band(draft, band, layout, path, pixels.data[group_index][band_index], rows, schema)
    _draft_masks(draft, table, pixels.masks[group_index], valid, schema, group_index, crs)


def _draft_coordinates(draft: _Draft, meta: TileMeta, layout: GroupLayout) -> str:
    """Adds the group and its pixel centres; returns the lattice's CRS."""
    schema = meta.schema
    group = ResolutionGroup(layout.resolution_m, layout.height, layout.width)
    window = cell_window(schema.scheme, meta.key.geocode, group)
    step_x, _, left, _, step_y, top = window.transform
    draft.head += group_members(
        layout.name, {"resolution_m": layout.resolution_m, "crs": window.crs}
    )
    for axis, start, step, size in (
        ("y", top, step_y, layout.height),
        ("x", left, step_x, layout.width),
    ):
        centres = start + step * (np.arange(size, dtype="<f8") + 0.5)
        path = f"{layout.name}/{axis}"
        attributes = {"_ARRAY_DIMENSIONS": [axis]}
        draft.head += array_members(
            path, centres.dtype, (size,), (size,), COORDINATE_SETTINGS, None, attributes
        )
        draft.head.append(Member(f"{path}/0", encode_block(centres, COORDINATE_SETTINGS)))
    return window.crs


def _draft_band(
    draft: _Draft,
    band: BandInfo,
    layout: GroupLayout,
    path: str,
    pixels: npt.NDArray[Any],
    rows: range,
    schema: TileSchema,
) -> None:
    """Adds a band's blocks; a block that is all fill is left out where a Zarr reader knows
    what to put there.
    """
    settings = settings_for(schema.codec, pixels.itemsize)
    fill = fill_value(band)
    must_store = zarr_fill_value(band) is None
    columns = -(-layout.width // layout.block_width)
    for index, window in enumerate(block_windows(layout)):
        block = pixels[window]
        is_fill = _is_all(block, fill)
        if is_fill and not must_store:
            continue
        if not is_fill:
            draft.stored.append((rows[index], len(draft.chunks)))
        encoded = encode_block(_whole_block(block, layout, fill, settings), settings)
        name = f"{path}/{index // columns}.{index % columns}"
        draft.chunks.append(Member(name, encoded))


def _whole_block(
    block: npt.NDArray[Any], layout: GroupLayout, fill: np.generic, settings: CodecSettings
) -> npt.NDArray[Any]:
    """The block as Zarr stores it: little-endian, padded to full size at the array's edge, and
    C-contiguous once transposed as the codec's order wants.
    """
    shape = (layout.block_height, layout.block_width)
    dtype = block.dtype.newbyteorder("<")
    if block.shape != shape:
        whole = np.full(shape, fill, dtype)
        whole[: block.shape[0], : block.shape[1]] = block
        block = whole
    if settings.order == "F":
        block = block.T
    return np.ascontiguousarray(block, dtype=dtype)


def _is_all(block: npt.NDArray[Any], fill: np.generic) -> bool:
    """Whether every pixel has exactly the bits of `fill` (so -0.0 is not 0.0, NaN is NaN)."""
    bits = np.dtype(f"u{block.itemsize}")
    wanted = np.asarray(fill, block.dtype).view(bits)
    numbers = block.view(bits)
    if numbers[0, 0] != wanted or numbers[-1, -1] != wanted:  # the common case, at once
        return False
    return bool((numbers == wanted).all())


def _plan_masks(masks: Sequence[BandMask], names: list[str]) -> list[str]:
    """For each band "all", "none" or `masks/<array name>`; equal masks get one name."""
    by_content: dict[bytes, str] = {}
    by_identity: dict[int, str] = {}
    plan = []
    for mask, name in zip(masks, names, strict=True):
        if not isinstance(mask, np.ndarray):
            plan.append("all" if mask else "none")
            continue
        answer = by_identity.get(id(mask))
        if answer is None:
            if mask.all():
                answer = "all"
            elif not mask.any():
                answer = "none"
            else:
                content = xxhash.xxh3_128_digest(np.ascontiguousarray(mask).data)
                answer = by_content.setdefault(content, f"masks/{name}")
            by_identity[id(mask)] = answer
        plan.append(answer)
    return plan


def _draft_masks(
    draft: _Draft,
    table: npt.NDArray[np.void],
    masks: Sequence[BandMask],
    plan: list[str],
    schema: TileSchema,
    group_index: int,
    crs: str,
) -> None:
    """Adds the group's masks that are not uniform, each once, and all bands' mask rows."""
    layout = schema.groups[group_index]
    settings = settings_for(schema.codec, 1)
    columns = -(-layout.width // layout.block_width)
    shape = (layout.height, layout.width)
    drafted: dict[str, list[int | None]] = {}
    for band_index, (mask, answer) in enumerate(zip(masks, plan, strict=True)):
        rows = schema.block_range(group_index, band_index, mask=True)
        if answer in ("all", "none"):
            table["fill"][rows.start : rows.stop] = answer == "all"
            continue
        assert isinstance(mask, np.ndarray)
        path = f"{layout.name}/{answer}"
        if not drafted:
            draft.head += group_members(f"{layout.name}/masks", {"true": "valid"})
        if answer not in drafted:
            band = layout.bands[band_index]
            draft.head += array_members(
                path,
                _BOOL,
                shape,
                (layout.block_height, layout.block_width),
                settings,
                None,
                band_attributes(band, layout, crs, None),
            )
        positions = drafted.setdefault(answer, [])
        is_new = not positions
        for index, window in enumerate(block_windows(layout)):
            block = mask[window]
            uniform = bool(block[0, 0]) if _is_all(block, block[0, 0]) else None
            if is_new:
                positions.append(None if uniform is not None else len(draft.chunks))
                whole = _whole_block(block, layout, np.bool_(False), settings)
                name = f"{path}/{index // columns}.{index % columns}"
                draft.chunks.append(Member(name, encode_block(whole, settings)))
            position = positions[index]
            if position is None:
                table["fill"][rows[index]] = uniform
            else:
                draft.stored.append((rows[index], position))
