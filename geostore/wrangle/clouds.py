"""Which of a tile's bands tells clouds, and how: the dataset's rule on the tile's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geostore.errors import InvalidInputError
from geostore.types import BandRole, CloudLayer, CloudRule, TileRow

if TYPE_CHECKING:
    from geostore.types import TileDetails

__all__ = ["find_cloud_layer"]


def find_cloud_layer(row: TileRow, details: TileDetails, rule: CloudRule) -> CloudLayer | None:
    """What the dataset's cloud rule looks at in a tile.

    Of the details only what never changes plays a part: they may be from before the rule.

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
            return CloudLayer(likelihood, "likelihood", frozenset({rule.threshold}))
    elif details.provider_method is not None:
        layer = CloudLayer.parse(details.provider_method)
        if row.schema.find_band(layer.band) is not None:
            return layer
    elif (likelihood and details.cloud_histogram is None) or any(
        band.role is BandRole.CLASS or band.bitfields for band in row.schema.bands
    ):
        return None
    raise InvalidInputError(
        f"tile {row.dataset}/{row.geocode}/{row.scene}: no band tells clouds"
        f" (cloud rule {rule}, the provider's method {details.provider_method}): read it without"
        " cloud_mask"
    )
