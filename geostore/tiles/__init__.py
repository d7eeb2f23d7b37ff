"""The tile file: one tile as one self-describing file that GDAL and zarr-python open too.

A tile file is a Zarr version 2 hierarchy in an uncompressed zip. docs/decisions/0001 has
the measurements behind that choice; `geostore.tiles.file` describes the bytes.
"""

from geostore.tiles.codec import CODEC_SETTINGS, CodecSettings
from geostore.tiles.decode import decode_into
from geostore.tiles.encode import encode_tile
from geostore.tiles.file import FORMAT_VERSION, TileFile
from geostore.tiles.layout import TilePixels, block_shape, fill_value, make_schema
from geostore.tiles.parse import parse_tile

__all__ = [
    "CODEC_SETTINGS",
    "FORMAT_VERSION",
    "CodecSettings",
    "TileFile",
    "TilePixels",
    "block_shape",
    "decode_into",
    "encode_tile",
    "fill_value",
    "make_schema",
    "parse_tile",
]
