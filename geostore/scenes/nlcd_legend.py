"""Classes of the National Land Cover Database: codes, names, colours.

After the legend that the Multi-Resolution Land Characteristics Consortium publishes with the
database (the classes of 2001 and since, with those of Alaska alone and of the coasts), and the
one of the first release, of 1992, which numbers several classes otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BACKGROUND", "LEGEND", "LEGEND_1992", "LandClass", "colors_of", "names_of"]

BACKGROUND = frozenset({0, 127, 250, 255})
"""Outside the mapped area: 0 in most releases, 127 and 255 in some, 250 in Annual NLCD."""


@dataclass(frozen=True, slots=True)
class LandClass:
    """One class."""

    name: str
    color: str | None = None
    """`#rrggbb`; None where the legend gives none."""


LEGEND: dict[int, LandClass] = {
    11: LandClass("Open Water", "#466b9f"),
    12: LandClass("Perennial Ice/Snow", "#d1def8"),
    21: LandClass("Developed, Open Space", "#dec5c5"),
    22: LandClass("Developed, Low Intensity", "#d99282"),
    23: LandClass("Developed, Medium Intensity", "#eb0000"),
    24: LandClass("Developed, High Intensity", "#ab0000"),
    31: LandClass("Barren Land", "#b3ac9f"),
    32: LandClass("Unconsolidated Shore"),
    41: LandClass("Deciduous Forest", "#68ab5f"),
    42: LandClass("Evergreen Forest", "#1c5f2c"),
    43: LandClass("Mixed Forest", "#b5c58f"),
    51: LandClass("Dwarf Scrub", "#af963c"),
    52: LandClass("Shrub/Scrub", "#ccb879"),
    71: LandClass("Grassland/Herbaceous", "#dfdfc2"),
    72: LandClass("Sedge/Herbaceous", "#d1d182"),
    73: LandClass("Lichens", "#a4cc51"),
    74: LandClass("Moss", "#82ba9e"),
    81: LandClass("Pasture/Hay", "#dcd939"),
    82: LandClass("Cultivated Crops", "#ab6c28"),
    90: LandClass("Woody Wetlands", "#b8d9eb"),
    91: LandClass("Palustrine Forested Wetland"),
    92: LandClass("Palustrine Scrub/Shrub Wetland"),
    93: LandClass("Estuarine Forested Wetland"),
    94: LandClass("Estuarine Scrub/Shrub Wetland"),
    95: LandClass("Emergent Herbaceous Wetlands", "#6c9fb8"),
    96: LandClass("Palustrine Emergent Wetland"),
    97: LandClass("Estuarine Emergent Wetland"),
    98: LandClass("Palustrine Aquatic Bed"),
    99: LandClass("Estuarine Aquatic Bed"),
}

LEGEND_1992: dict[int, LandClass] = {
    11: LandClass("Open Water"),
    12: LandClass("Perennial Ice/Snow"),
    21: LandClass("Low Intensity Residential"),
    22: LandClass("High Intensity Residential"),
    23: LandClass("Commercial/Industrial/Transportation"),
    31: LandClass("Bare Rock/Sand/Clay"),
    32: LandClass("Quarries/Strip Mines/Gravel Pits"),
    33: LandClass("Transitional"),
    41: LandClass("Deciduous Forest"),
    42: LandClass("Evergreen Forest"),
    43: LandClass("Mixed Forest"),
    51: LandClass("Shrubland"),
    61: LandClass("Orchards/Vineyards/Other"),
    71: LandClass("Grasslands/Herbaceous"),
    81: LandClass("Pasture/Hay"),
    82: LandClass("Row Crops"),
    83: LandClass("Small Grains"),
    84: LandClass("Fallow"),
    85: LandClass("Urban/Recreational Grasses"),
    91: LandClass("Woody Wetlands"),
    92: LandClass("Emergent Herbaceous Wetlands"),
}


def names_of(legend: dict[int, LandClass]) -> dict[str, str]:
    """Name by code as text, as `BandInfo.class_names` has it."""
    return {str(code): one.name for code, one in legend.items()}


def colors_of(legend: dict[int, LandClass]) -> dict[str, str]:
    """Colour by code as text, of the classes that have one."""
    return {str(code): one.color for code, one in legend.items() if one.color is not None}
