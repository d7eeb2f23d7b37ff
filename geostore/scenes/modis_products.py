"""What the MODIS land products' user guides say of their layers: sizes, periods, bits, clouds.

Sources, each the guide that the product's own page (LP DAAC, NSIDC) links: MOD09 User's Guide
1.4 and 1.7 (surface reflectance), MOD11 Collection 6 User's Guide (LST), MOD13 Collection 6
User Guide (vegetation indices), MOD15 Collection 5 and 6 guides (LAI and FPAR), MOD10
Collection 6 User Guide (snow cover), MCD12 Collection 6 User Guide (land cover); and what the
granules say themselves in attributes (`QA index`, `Legend`, `Key`), which tests compare where a
granule is at hand. A product that is not here goes by the general rules: names and units tell
auxiliary layers from measured ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from geostore.types import BandRole, BitField, BitTest, CloudLayer, SchemeName

__all__ = [
    "LENGTHS",
    "PIXEL_1KM_M",
    "LayerRule",
    "Period",
    "Product",
    "cloud_layer",
    "common_names",
    "is_bits",
    "layer_rule",
    "parse_product",
    "product_of_kind",
    "radiometry",
    "role_of",
]

PIXEL_1KM_M = 926.6254330555833
"""A 1 km pixel of the sinusoidal grid: a 1200th of a 36th of the sphere's circumference."""
_500M, _250M = PIXEL_1KM_M / 2, PIXEL_1KM_M / 4
LENGTHS: Mapping[SchemeName, int] = {"geohash": 3, "quadtile": 8}
"""Cell length by scheme."""

_NAME = re.compile(r"^M(?P<platform>[OYC])D(?P<kind>\d{2}[A-Z0-9]{1,5})$")
_PLATFORMS = {"O": "terra", "Y": "aqua", "C": "terra+aqua"}

Period = int | Literal["month", "year"]
"""Days that a product composes, or a whole month or year."""

# Kind of product: (what it composes, pixel sizes in metres finest first).
_KINDS: dict[str, tuple[Period, tuple[float, ...]]] = {
    "09GA": (1, (_500M, PIXEL_1KM_M)),
    "09GQ": (1, (_250M,)),
    "09A1": (8, (_500M,)),
    "09Q1": (8, (_250M,)),
    "10A1": (1, (_500M,)),
    "10A2": (8, (_500M,)),
    "11A1": (1, (PIXEL_1KM_M,)),
    "11A2": (8, (PIXEL_1KM_M,)),
    "12Q1": ("year", (_500M,)),
    "13Q1": (16, (_250M,)),
    "13A1": (16, (_500M,)),
    "13A2": (16, (PIXEL_1KM_M,)),
    "13A3": ("month", (PIXEL_1KM_M,)),
    "14A1": (8, (PIXEL_1KM_M,)),
    "14A2": (8, (PIXEL_1KM_M,)),
    "15A2": (8, (PIXEL_1KM_M,)),
    "15A2H": (8, (_500M,)),
    "15A3H": (4, (_500M,)),
    "16A2": (8, (_500M,)),
    "17A2H": (8, (_500M,)),
    "43A1": (16, (_500M,)),
    "43A2": (16, (_500M,)),
    "43A3": (16, (_500M,)),
    "43A4": (16, (_500M,)),
    "64A1": ("month", (_500M,)),
}

_REFLECTANCES = tuple(f"sur_refl_b0{number}" for number in range(1, 8))
_VI_LAYERS = (
    "NDVI",
    "EVI",
    "VI Quality",
    "red reflectance",
    "NIR reflectance",
    "blue reflectance",
    "MIR reflectance",
    "view zenith angle",
    "sun zenith angle",
    "relative azimuth angle",
    "composite day of the year",
    "pixel reliability",
)
# What a whole granule has, of the products that are cut and repackaged most.
_LAYERS: dict[str, tuple[str, ...]] = {
    "09GA": (
        "num_observations_1km",
        "state_1km_1",
        *("SensorZenith_1", "SensorAzimuth_1", "Range_1", "SolarZenith_1", "SolarAzimuth_1"),
        *("gflags_1", "orbit_pnt_1", "granule_pnt_1", "num_observations_500m"),
        *(f"{name}_1" for name in _REFLECTANCES),
        *("QC_500m_1", "obscov_500m_1", "iobs_res_1"),
    ),
    "09A1": (
        *_REFLECTANCES,
        *("sur_refl_qc_500m", "sur_refl_szen", "sur_refl_vzen", "sur_refl_raz"),
        *("sur_refl_state_500m", "sur_refl_day_of_year"),
    ),
    "10A2": ("Maximum_Snow_Extent", "Eight_Day_Snow_Cover"),
    "11A1": (
        *("LST_Day_1km", "QC_Day", "Day_view_time", "Day_view_angl"),
        *("LST_Night_1km", "QC_Night", "Night_view_time", "Night_view_angl"),
        *("Emis_31", "Emis_32", "Clear_day_cov", "Clear_night_cov"),
    ),
    "13Q1": tuple(f"250m 16 days {name}" for name in _VI_LAYERS),
    "13A1": tuple(f"500m 16 days {name}" for name in _VI_LAYERS),
    "13A2": tuple(f"1 km 16 days {name}" for name in _VI_LAYERS),
    "15A2": (
        *("Fpar_1km", "Lai_1km", "FparLai_QC", "FparExtra_QC"),
        *("FparStdDev_1km", "LaiStdDev_1km"),
    ),
}


@dataclass(frozen=True, slots=True)
class Product:
    """A product by its short name, `MOD09GA`, or whatever its metadata call it."""

    name: str
    kind: str | None = None
    """`09GA`; None where the name is not one of MODIS land."""
    platform: str | None = None
    """By the name: `terra`, `aqua`, or `terra+aqua` for what is made of both."""
    period: Period | None = None
    resolutions_m: tuple[float, ...] | None = None
    layers: tuple[str, ...] = ()
    """What a whole granule has; () where that is not known here."""

    @property
    def reader(self) -> str:
        return f"modis-{self.name.lower()}"


def parse_product(name: str) -> Product:
    """The product of that short name; one that is not known has its name only."""
    match = _NAME.match(name.upper())
    if match is None:
        return Product(name)
    kind = match["kind"]
    return _of_kind(name.upper(), kind, _PLATFORMS[match["platform"]])


def product_of_kind(kind: str) -> Product:
    """A product of which only the kind is known, `09GA`: Terra's and Aqua's have one layout."""
    return _of_kind(kind, kind, None)


def _of_kind(name: str, kind: str, platform: str | None) -> Product:
    period, sizes = _KINDS.get(kind, (None, None))
    return Product(name, kind, platform, period, sizes, _LAYERS.get(kind, ()))


# ---------------------------------------------------------------- layers


@dataclass(frozen=True, slots=True)
class LayerRule:
    """What the guide of a product says of layers of a name."""

    kinds: str
    """Kinds of product, a regular expression."""
    layers: str
    """Names of layers, a regular expression."""
    role: BandRole
    bitfields: tuple[BitField, ...] = ()
    classes: Mapping[str, str] = field(default_factory=dict)
    cloud_tests: tuple[BitTest, ...] = ()
    cloud_classes: frozenset[int] = frozenset()
    unseen_classes: frozenset[int] = frozenset()
    """Classes that are neither cloud nor clear."""
    not_produced: BitTest | None = None
    """Bits that say that there is no pixel here, whatever the rest says."""
    scale: float | None = None
    """Where a file states none: integers times this are the physical value."""
    nodata: int | None = None
    """Where a file states none."""


_CLOUD_STATE = {"0": "clear", "1": "cloudy", "2": "mixed", "3": "not set, assumed clear"}
_NO_YES = {"0": "no", "1": "yes"}
_FOUR_AMOUNTS = {"0": "none", "1": "small", "2": "average", "3": "high"}
_LAND_WATER = {
    "0": "shallow ocean",
    "1": "land",
    "2": "ocean coastlines and lake shorelines",
    "3": "shallow inland water",
    "4": "ephemeral water",
    "5": "deep inland water",
    "6": "continental or moderate ocean",
    "7": "deep ocean",
}
_STATE = (
    BitField("cloud_state", 0, 2, _CLOUD_STATE),
    BitField("cloud_shadow", 2, 1, _NO_YES),
    BitField("land_water", 3, 3, _LAND_WATER),
    BitField("aerosol", 6, 2, {"0": "climatology", "1": "low", "2": "average", "3": "high"}),
    BitField("cirrus", 8, 2, _FOUR_AMOUNTS),
    BitField("internal_cloud", 10, 1, _NO_YES),
    BitField("internal_fire", 11, 1, _NO_YES),
    BitField("snow_ice", 12, 1, _NO_YES),
    BitField("adjacent_to_cloud", 13, 1, _NO_YES),
    BitField("salt_pan", 14, 1, _NO_YES),
    BitField("internal_snow", 15, 1, _NO_YES),
)
_QC_500M = (
    BitField("modland", 0, 2),
    *(BitField(f"band_{number}_quality", 4 * number - 2, 4) for number in range(1, 8)),
    BitField("atmospheric_correction", 30, 1, _NO_YES),
    BitField("adjacency_correction", 31, 1, _NO_YES),
)
_LST_QC = (
    BitField(
        "mandatory",
        0,
        2,
        {
            "0": "good quality",
            "1": "other quality",
            "2": "not produced, cloud",
            "3": "not produced, other reasons",
        },
    ),
    BitField("data_quality", 2, 2),
    BitField("emissivity_error", 4, 2),
    BitField("lst_error", 6, 2),
)
_VI_QUALITY = (
    BitField(
        "modland",
        0,
        2,
        {
            "0": "good quality",
            "1": "check other QA",
            "2": "most probably cloudy",
            "3": "not produced, other reasons than clouds",
        },
    ),
    BitField("usefulness", 2, 4),
    BitField("aerosol", 6, 2, {"0": "climatology", "1": "low", "2": "average", "3": "high"}),
    BitField("adjacent_cloud", 8, 1, _NO_YES),
    BitField("brdf_correction", 9, 1, _NO_YES),
    BitField("mixed_clouds", 10, 1, _NO_YES),
    BitField("land_water", 11, 3, _LAND_WATER),
    BitField("snow_ice", 14, 1, _NO_YES),
    BitField("shadow", 15, 1, _NO_YES),
)
_LAI_QC = (
    BitField("modland", 0, 1, {"0": "good quality", "1": "other quality"}),
    BitField("sensor", 1, 1, {"0": "terra", "1": "aqua"}),
    BitField("dead_detector", 2, 1, _NO_YES),
    BitField("cloud_state", 3, 2, _CLOUD_STATE),
    BitField(
        "algorithm",
        5,
        3,
        {
            "0": "main, best",
            "1": "main, saturated",
            "2": "empirical, bad geometry",
            "3": "empirical, other reasons",
            "4": "not produced",
        },
    ),
)

_RULES: tuple[LayerRule, ...] = (
    # Cloud is what the guide calls cloudy or mixed, and cirrus that is average or high; small
    # amounts of cirrus are flagged over much of the globe on most days.
    LayerRule(
        r"09(GA|A1|GQ|Q1)",
        r"(state_1km|sur_refl_state_(500|250)m)(_1)?",
        BandRole.QUALITY,
        _STATE,
        cloud_tests=(BitTest(0, 1, frozenset({1, 2})), BitTest(8, 9, frozenset({2, 3}))),
    ),
    LayerRule(r"09(GA|A1)", r"(QC_500m_1|sur_refl_qc_500m)", BandRole.QUALITY, _QC_500M),
    LayerRule(r"11A[12]", r"QC_(Day|Night)", BandRole.QUALITY, _LST_QC),
    LayerRule(r"13[QA]\d", r".*VI Quality", BandRole.QUALITY, _VI_QUALITY),
    LayerRule(
        r"13[QA]\d",
        r".*pixel reliability",
        BandRole.CLASS,
        classes={"0": "good", "1": "marginal", "2": "snow or ice", "3": "cloudy"},
        cloud_classes=frozenset({3}),
    ),
    LayerRule(r"13[QA]\d", r".* (NDVI|EVI)", BandRole.DATA, scale=1e-4, nodata=-3000),
    LayerRule(
        r"15A[23]H?",
        r"FparLai_QC",
        BandRole.QUALITY,
        _LAI_QC,
        cloud_tests=(BitTest(3, 4, frozenset({1, 2})),),
        not_produced=BitTest(5, 7, frozenset({4})),
    ),
    LayerRule(
        r"10A[12]",
        r"(Maximum_Snow_Extent|Snow_Cover_Daily_Tile)",
        BandRole.CLASS,
        classes={
            "0": "missing data",
            "1": "no decision",
            "11": "night",
            "25": "no snow",
            "37": "lake",
            "39": "ocean",
            "50": "cloud",
            "100": "lake ice",
            "200": "snow",
            "254": "detector saturated",
        },
        cloud_classes=frozenset({50}),
        unseen_classes=frozenset({0, 1, 11, 254}),
    ),
    LayerRule(
        r"10A1",
        r"NDSI_Snow_Cover",
        BandRole.CLASS,
        classes={
            "200": "missing data",
            "201": "no decision",
            "211": "night",
            "237": "inland water",
            "239": "ocean",
            "250": "cloud",
            "254": "detector saturated",
        },
        cloud_classes=frozenset({250}),
        unseen_classes=frozenset({200, 201, 211, 254}),
    ),
    LayerRule(
        r"12Q1",
        r"LC_Type1",  # collection 6 on; before, water was 0
        BandRole.CLASS,
        classes={
            "1": "evergreen needleleaf forest",
            "2": "evergreen broadleaf forest",
            "3": "deciduous needleleaf forest",
            "4": "deciduous broadleaf forest",
            "5": "mixed forest",
            "6": "closed shrubland",
            "7": "open shrubland",
            "8": "woody savanna",
            "9": "savanna",
            "10": "grassland",
            "11": "permanent wetland",
            "12": "cropland",
            "13": "urban and built-up land",
            "14": "mosaic of cropland and natural vegetation",
            "15": "permanent snow and ice",
            "16": "barren",
            "17": "water",
        },
    ),
    LayerRule(r"12Q1", r"(LC_(Type|Prop)\d|Land_Cover_Type_\d|LW)", BandRole.CLASS),
    LayerRule(r"14A[12]", r"FireMask", BandRole.CLASS),
)

_AUXILIARY = re.compile(
    r"(?:^|[_\W\d])(?:q[ac]|quality|state|reliability|stddev|uncertainty|assessment|flags?|gflags|pnt"
    r"|observations?|obscov|iobs|scan|cov|day of the year|day_of_year|days?_used"
    r"|view_time|time|szen|vzen|raz|azm?|range|mask)(?:$|[_\W\d])"
    r"|zenith|azimuth|view_angl|angle|stddev",
    re.IGNORECASE,
)
_BIT_UNITS = frozenset({"bit field", "bit", "bit_field", "class-flag", "rank", "flags"})
_NIR = ("nir", "nir08")  # 841 to 876 nm, the only near infrared band over land
_COMMON_BY_NUMBER: dict[int, tuple[str, ...]] = {
    1: ("red",),
    2: _NIR,
    3: ("blue",),
    4: ("green",),
    6: ("swir16",),
    7: ("swir22",),
}
_NUMBERED = re.compile(r"^(?:sur_refl_b|Nadir_Reflectance_Band)0?([1-7])(?:_1)?$")
_COMMON_BY_NAME = {"red": ("red",), "NIR": _NIR, "blue": ("blue",), "MIR": ("swir22",)}
_NAMED = re.compile(r"(?:^|\s)(red|NIR|blue|MIR) reflectance$")


def layer_rule(product: Product, layer: str) -> LayerRule | None:
    """What the product's guide says of a layer, where it is written down here."""
    if product.kind is None:
        return None
    for rule in _RULES:
        if re.fullmatch(rule.kinds, product.kind) and re.fullmatch(rule.layers, layer):
            return rule
    return None


def role_of(product: Product, layer: str, units: str | None) -> BandRole:
    """Measured, or said of what was measured: angles, counts, times, quality bits."""
    rule = layer_rule(product, layer)
    if rule is not None:
        return rule.role
    is_auxiliary = is_bits(units) or _AUXILIARY.search(layer) is not None
    return BandRole.QUALITY if is_auxiliary else BandRole.DATA


def is_bits(units: str | None) -> bool:
    """Whether a layer's units say that its numbers are flags or ranks."""
    return (units or "").strip().lower() in _BIT_UNITS


def common_names(layer: str) -> tuple[str, ...]:
    """STAC's names of a reflectance, the usual one first; band 5 (1230 to 1250 nm) has none."""
    numbered = _NUMBERED.match(layer)
    if numbered:
        return _COMMON_BY_NUMBER.get(int(numbered[1]), ())
    named = _NAMED.search(layer)
    return _COMMON_BY_NAME[named[1]] if named else ()


def radiometry(attributes: Mapping[str, Any]) -> tuple[float, float]:
    """(scale, offset) of physical = stored * scale + offset, by a layer's attributes.

    HDF's own rule is physical = scale_factor * (stored - add_offset). Two things differ in
    MODIS: some products (MOD09, MOD13) state the reciprocal, 10000 or 100, told by being a
    power of ten above 1 (Range_1 of MOD09GA, 25 m, is a true factor); and layers that say so
    in words (MOD11: `data * scale_factor + add_offset`) add the offset after scaling.

    >>> radiometry({"scale_factor": 10000.0, "add_offset": 0.0})
    (0.0001, 0.0)
    """
    scale = _number(attributes.get("scale_factor"))
    offset = _number(attributes.get("add_offset")) or 0.0
    if not scale:
        return 1.0, 0.0
    if scale in (10.0, 100.0, 1000.0, 10_000.0, 100_000.0):
        scale = 1.0 / scale
    words = (str(value) for value in attributes.values() if isinstance(value, str))
    if any(re.search(r"\*\s*scale_factor\s*\+\s*add_offset", text) for text in words):
        return scale, offset
    return scale, -offset * scale if offset else 0.0


def _number(value: object) -> float | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value)
    return number if abs(number) < 1e30 else None  # inf and NaN fail as well


def cloud_layer(product: Product, layers: Collection[str]) -> CloudLayer | None:
    """Where a scene of these layers tells cloud; None where nothing in it can."""
    for layer in layers:
        rule = layer_rule(product, layer)
        if rule is None or not (rule.cloud_tests or rule.cloud_classes):
            continue
        if rule.cloud_tests:
            return CloudLayer(layer, "bits", tests=rule.cloud_tests)
        return CloudLayer(
            layer, "classes", values=rule.cloud_classes, nodata_values=rule.unseen_classes
        )
    return None
