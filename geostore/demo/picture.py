"""True-colour pictures with cells drawn on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.compute.resample import resample
from geostore.types import BBox

__all__ = ["Picture", "draw_cells", "stretch", "true_colour"]

_Picture = npt.NDArray[np.uint8]
_BACKGROUND = 24
_GAMMA = 1.6

# 5 x 7 letters, a row a number, its highest bit the leftmost pixel: what geocodes and
# percentages need, so that no font and no drawing package has to be there.
_GLYPHS: dict[str, tuple[int, ...]] = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    "b": (16, 16, 22, 25, 17, 17, 30),
    "c": (0, 0, 14, 16, 16, 17, 14),
    "d": (1, 1, 13, 19, 17, 17, 15),
    "e": (0, 0, 14, 17, 31, 16, 14),
    "f": (6, 9, 8, 28, 8, 8, 8),
    "g": (0, 15, 17, 17, 15, 1, 14),
    "h": (16, 16, 22, 25, 17, 17, 17),
    "j": (2, 0, 6, 2, 2, 18, 12),
    "k": (16, 16, 18, 20, 24, 20, 18),
    "m": (0, 0, 26, 21, 21, 17, 17),
    "n": (0, 0, 22, 25, 17, 17, 17),
    "p": (0, 0, 30, 17, 30, 16, 16),
    "q": (0, 0, 13, 19, 15, 1, 1),
    "r": (0, 0, 22, 25, 16, 16, 16),
    "s": (0, 0, 14, 16, 14, 1, 30),
    "t": (8, 8, 28, 8, 8, 9, 6),
    "u": (0, 0, 17, 17, 17, 19, 13),
    "v": (0, 0, 17, 17, 17, 10, 4),
    "w": (0, 0, 17, 17, 21, 21, 10),
    "x": (0, 0, 17, 10, 4, 10, 17),
    "y": (0, 0, 17, 17, 15, 1, 14),
    "z": (0, 0, 31, 2, 4, 8, 31),
    "%": (24, 25, 2, 4, 8, 19, 3),
    ".": (0, 0, 0, 0, 0, 12, 12),
    " ": (0, 0, 0, 0, 0, 0, 0),
}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture with its place, pixels square on the ground in its middle."""

    pixels: _Picture
    """(height, width, 3), red, green, blue."""
    box: BBox
    """What it shows, degrees."""
    margin_px: int
    """Border without data."""

    def column(self, longitude: float) -> int:
        """The pixel edge nearest to a longitude; may lie outside."""
        share = (longitude - self.box.west) / (self.box.east - self.box.west)
        width: int = self.pixels.shape[1]
        return round(share * width)

    def row(self, latitude: float) -> int:
        """The pixel edge nearest to a latitude; may lie outside."""
        share = (self.box.north - latitude) / (self.box.north - self.box.south)
        height: int = self.pixels.shape[0]
        return round(share * height)


def stretch(band: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """A band as brightness: its 0.5th to 99.7th percentile over the valid pixels onto 0..255.

    A gamma of 1.6 opens the shadows. All of one value, or nothing valid: black.
    """
    if not valid.any():
        return np.zeros(band.shape, np.uint8)
    low, high = np.percentile(band[valid], (0.5, 99.7))
    share = (band.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-9))
    bright = np.clip(share, 0, 1) ** np.float32(1 / _GAMMA)
    return np.asarray(np.rint(bright * 255), np.uint8)


def true_colour(
    data: npt.NDArray[Any], mask: npt.NDArray[np.bool_], box: BBox, *, margin_px: int = 28
) -> Picture:
    """A picture of three bands on a lattice of degrees.

    A degree of longitude is shorter than one of latitude by the cosine of the latitude, so
    columns are averaged until pixels are square on the ground. What holds no data is cut
    away but for a margin.

    Args:
        data: (3, height, width): red, green, blue.
        mask: the same shape, True where valid.
        box: what they cover, degrees; not across the antimeridian.
        margin_px: dark border round the data.
    """
    _, height, width = data.shape
    degrees_wide, degrees_high = box.east - box.west, box.north - box.south
    middle = math.radians((box.south + box.north) / 2)
    squeezed = max(1, min(width, round(height * degrees_wide * math.cos(middle) / degrees_high)))
    pixels = np.full((height, squeezed, 3), _BACKGROUND, np.uint8)
    everywhere = np.ones((height, squeezed), np.bool_)
    for index in range(3):
        band, valid = resample(
            data[index].astype(np.float32),
            mask[index],
            (height, squeezed),
            method="mean",
            fill=0,
        )
        known = everywhere if valid is None else valid
        pixels[..., index] = np.where(known, stretch(band, known), _BACKGROUND)
        everywhere = everywhere & known
    pixels[~everywhere] = _BACKGROUND
    rows = np.flatnonzero(everywhere.any(axis=1))
    columns = np.flatnonzero(everywhere.any(axis=0))
    if not len(rows):
        return Picture(pixels, box, 0)
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    framed = np.pad(
        pixels[top:bottom, left:right],
        ((margin_px, margin_px), (margin_px, margin_px), (0, 0)),
        constant_values=_BACKGROUND,
    )
    across, down = degrees_wide / squeezed, degrees_high / height
    cut = BBox(
        west=box.west + across * (left - margin_px),
        south=box.north - down * (bottom + margin_px),
        east=box.west + across * (right + margin_px),
        north=box.north - down * (top - margin_px),
    )
    return Picture(framed, cut, margin_px)


def _line(pixels: _Picture, rows: slice, columns: slice, brightness: int) -> None:
    """Blends a rectangle towards white (255) or black (0), so that the ground shows through."""
    part = pixels[rows, columns].astype(np.uint16)
    pixels[rows, columns] = ((part + 3 * brightness) // 4).astype(np.uint8)


def _outline(pixels: _Picture, top: int, left: int, bottom: int, right: int) -> None:
    """The border of a cell: a light line between two dark ones, legible on any ground."""
    height, width = pixels.shape[:2]
    down = slice(max(top - 2, 0), min(bottom + 2, height))
    across = slice(max(left - 2, 0), min(right + 2, width))
    for offset, brightness in ((-2, 0), (1, 0), (-1, 255), (0, 255)):
        for row in (top + offset, bottom + offset):
            if 0 <= row < height:
                _line(pixels, slice(row, row + 1), across, brightness)
        for column in (left + offset, right + offset):
            if 0 <= column < width:
                _line(pixels, down, slice(column, column + 1), brightness)


def _write(pixels: _Picture, text: str, row: int, column: int, *, scale: int) -> None:
    """White letters on a darkened plate; what reaches over an edge is left out."""
    bits = np.zeros((9, 6 * len(text) + 1), np.bool_)
    for index, letter in enumerate(text):
        glyph = _GLYPHS.get(letter, _GLYPHS[" "])
        for line, number in enumerate(glyph):
            for bit in range(5):
                bits[line + 1, 6 * index + 1 + bit] = bool(number >> (4 - bit) & 1)
    letters = np.repeat(np.repeat(bits, scale, axis=0), scale, axis=1)
    height, width = (
        min(letters.shape[0], pixels.shape[0] - row),
        min(letters.shape[1], pixels.shape[1] - column),
    )
    if row < 0 or column < 0 or height <= 0 or width <= 0:
        return
    here = pixels[row : row + height, column : column + width]
    here[...] = here // 3
    here[letters[:height, :width]] = 255


def draw_cells(picture: Picture, cells: Mapping[str, tuple[BBox, str]]) -> None:
    """Draws cells' borders and names into a picture.

    Args:
        picture: changed in place.
        cells: by geocode, the cell's box and a few more words for its second line.
    """
    scale = max(1, min(picture.pixels.shape[:2]) // 400)
    labels = []
    for geocode, (box, note) in cells.items():
        top, bottom = picture.row(box.north), picture.row(box.south)
        left, right = picture.column(box.west), picture.column(box.east)
        _outline(picture.pixels, top, left, bottom, right)
        # In the corner of what is seen of the cell, never in the border round the data.
        row = max(top, picture.margin_px) + 4 * scale
        column = max(left, picture.margin_px) + 4 * scale
        labels += [(geocode, row, column), (note, row + 10 * scale, column)]
    # After all borders, so that no border crosses a name.
    for text, row, column in labels:
        _write(picture.pixels, text, row, column, scale=scale)
