"""Which of a tile's bands tells clouds, and how: the dataset's rule on the tile's layers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from geostore.compute.clouds import cloud_mask
from geostore.errors import InvalidInputError
from geostore.types import BandRole, CloudRule, TileRow

if TYPE_CHECKING:
    from geostore.types import TileDetails

__all__ = ["CloudSource", "find_cloud_source"]

# The method that a tile records: a band, then class codes (`SCL 8,9,10`), bit numbers
# (`QA_PIXEL bits 3,4`), or the lowest percent that is cloud (`CLD >= 50`).
_METHOD = re.compile(
    r"^(?P<band>\S+) (?:(?P<bits>bits )|(?P<least>>= ?))?(?P<values>\d+(?:, ?\d+)*)$"
)


@dataclass(frozen=True, slots=True)
class CloudSource:
    """A band and what in it means cloud."""

    band: str
    kind: Literal["classes", "bits", "likelihood"]
    values: frozenset[int]

    def find(self, layer: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where the layer says cloud."""
        return cloud_mask(layer, self.kind, self.values)


def _parse_method(method: str) -> CloudSource | None:
    match = _METHOD.match(method)
    if match is None:
        return None
    kind: Literal["classes", "bits", "likelihood"] = "classes"
    if match["bits"]:
        kind = "bits"
    elif match["least"]:
        kind = "likelihood"
    values = frozenset(int(value) for value in match["values"].split(","))
    return CloudSource(match["band"], kind, values)


def find_cloud_source(row: TileRow, details: TileDetails, rule: CloudRule) -> CloudSource | None:
    """What the dataset's cloud rule looks at in a tile.

    Returns:
        None where the tile has a cloud layer whose pixels are all nodata here: it calls
        nothing cloud.

    Raises:
        InvalidInputError: no band of the tile tells clouds.
    """
    likelihood = next(
        (band.name for band in row.schema.bands if band.role is BandRole.LIKELIHOOD), None
    )
    if rule.method == "likelihood":
        if likelihood is not None:
            return CloudSource(likelihood, "likelihood", frozenset({rule.threshold}))
    elif details.cloud_method is not None:
        source = _parse_method(details.cloud_method)
        if source is not None and row.schema.find_band(source.band) is not None:
            return source
    elif likelihood or any(band.role is BandRole.CLASS for band in row.schema.bands):
        return None
    raise InvalidInputError(
        f"tile {row.dataset}/{row.geocode}/{row.scene}: no band tells clouds"
        f" (cloud rule {rule.method}, method {details.cloud_method}): read it without cloud_mask"
    )
