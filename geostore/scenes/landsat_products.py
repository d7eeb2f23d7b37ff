"""Which Landsat products lie in a source, by their files' names and metadata files.

Names follow the Landsat Product Identifier (Collections 1 and 2) or, before collections, the
Landsat Scene Identifier. A product is the files of one folder that share what comes before the
band: `<stem>_B4.TIF`. Its MTL says what it is; without one the name does, where it is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from geostore.errors import UnreadableSourceError
from geostore.scenes.landsat_bands import SENSORS, Sensor
from geostore.scenes.landsat_mtl import MTL_MARKS, Mtl, read_mtl
from geostore.scenes.landsat_quality import Generation

if TYPE_CHECKING:
    from geostore.scenes.source import Source

__all__ = [
    "PRODUCTS_MAX",
    "Identity",
    "Product",
    "band_of",
    "find_products",
    "foreign_rasters",
    "identify",
    "reader_name",
]

PRODUCTS_MAX = 1_000
"""Products in one source."""
HEAD_BYTES = 1 << 12
"""Of a metadata file: its root is named in the first line or two."""

_BANDS = (
    r"SR_B\d|ST_B\d{1,2}|SR_QA_AEROSOL|SR_ATMOS_OPACITY|SR_CLOUD_QA"
    r"|ST_(?:ATRAN|CDIST|DRAD|EMIS|EMSD|QA|TRAD|URAD)"
    r"|B\d{1,2}|B6_VCID_[12]|BQA|QA_PIXEL|QA_RADSAT|VAA|VZA|SAA|SZA"
)
# Upper case only: `sr_cloud_qa` is a layer of another product line (ESPA), with other contents.
_BAND_FILE = re.compile(rf"^(?P<stem>.{{1,200}}?)_(?P<band>{_BANDS})(?i:\.TIFF?)$")
_MEASURED = re.compile(r"^(?:SR_|ST_)?B\d")
_MTL_FILE = re.compile(r"^(?P<stem>.{1,200})_MTL\.(?P<form>txt|xml|json)$", re.IGNORECASE)
_FORMS = ("txt", "xml", "json")
"""Of the forms that are there the first is read; every generation has the text."""

# As LC08_L1TP_014031_20180106, or further with _20180119_01_T1.
_PRODUCT_ID = re.compile(
    r"^L(?P<sensor>[COTE])0(?P<satellite>[45789])_(?P<level>L1TP|L1GT|L1GS|L2SP|L2SR)"
    r"_(?P<path>\d{3})(?P<row>\d{3})_(?P<date>\d{8})"
    r"(?:_(?P<made>\d{8})_(?P<collection>\d{2})_(?P<tier>RT|T1|T2|A1|A2))?$"
)
# As LC80200392015216LGN00.
_SCENE_ID = re.compile(
    r"^L(?P<sensor>[COTE])(?P<satellite>[45789])(?P<path>\d{3})(?P<row>\d{3})"
    r"(?P<year>\d{4})(?P<day>\d{3})[A-Z]{3}\d{2}$"
)
_SENSORS: dict[tuple[str, bool], Sensor] = {
    ("C", True): "OLI_TIRS",
    ("O", True): "OLI",
    ("T", True): "TIRS",
    ("T", False): "TM",
    ("E", False): "ETM",
}
_RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".img", ".ntf", ".hdf", ".nc", ".vrt")


@dataclass(slots=True)
class Product:
    """The files of one product."""

    folder: str
    """"" for the source itself."""
    stem: str
    """What its files' names begin with."""
    files: dict[str, list[str]] = field(default_factory=dict)
    """Band to members; more than one is an error."""
    mtl: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a product is."""

    id: str
    generation: Generation
    level: str
    """`L1TP`, `L2SP`; `L1T`, `L1GT` before collections."""
    sensor: Sensor
    satellite: int
    wrs_path: int | None
    wrs_row: int | None
    day: date | None
    scene_id: str | None = None
    tier: str | None = None


def reader_name(identity: Identity) -> str:
    """The reader, and dataset, of a product."""
    if identity.generation == "c2":
        return "landsat-c2-l2" if identity.level.startswith("L2") else "landsat-c2-l1"
    return "landsat-c1-l1"


def band_of(file_name: str) -> str | None:
    """The band that a file name ends in: `SR_B4`, `B6_VCID_1`, `QA_PIXEL`."""
    match = _BAND_FILE.match(file_name)
    return match["band"] if match else None


def find_products(source: Source, names: Sequence[str]) -> list[Product]:
    """The products among a source's members, by folder and name.

    Raises:
        UnreadableSourceError: more than `PRODUCTS_MAX`.
    """
    found: dict[tuple[str, str], Product] = {}
    forms: dict[tuple[str, str], dict[str, str]] = {}
    for member in filter(_is_visible, names):
        folder, _, name = member.rpartition("/")
        if match := _BAND_FILE.match(name):
            product = found.setdefault((folder, match["stem"]), Product(folder, match["stem"]))
            product.files.setdefault(match["band"], []).append(member)
        elif match := _MTL_FILE.match(name):
            forms.setdefault((folder, match["stem"]), {})[match["form"].lower()] = member
    for place, by_form in forms.items():
        member = next(by_form[form] for form in _FORMS if form in by_form)
        if _from_name(place[1]) or _is_mtl(source, member):
            found.setdefault(place, Product(*place)).mtl = member
    _adopt(found)
    products = [one for one in found.values() if one.mtl or _is_product(source, one)]
    if len(products) > PRODUCTS_MAX:
        raise UnreadableSourceError(
            f"{source.path}: {len(products)} Landsat products, expected at most {PRODUCTS_MAX}"
            " in one folder or archive"
        )
    return sorted(products, key=lambda one: (one.folder, one.stem))


def _is_visible(member: str) -> bool:
    """Whether it is a file of its own: not what macOS adds to archives, or a hidden file."""
    return not any(part.startswith((".", "__MACOSX")) for part in member.split("/"))


def _is_mtl(source: Source, member: str) -> bool:
    head = source.head(member, HEAD_BYTES)
    return any(mark in head for mark in MTL_MARKS)


def _is_product(source: Source, product: Product) -> bool:
    """Whether files without an MTL are a product: by their name, their bands and their bytes."""
    member = next((product.files[name][0] for name in product.files if _MEASURED.match(name)), None)
    if member is None or _without_mtl(source, product) is None:
        return False
    return source.head(member, 4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _adopt(found: dict[tuple[str, str], Product]) -> None:
    """Gives a metadata file without band files those of its folder that were renamed.

    Only where nothing else can be meant: it is the folder's only one, and the files share a
    stem that is no product's name.
    """
    for folder in {folder for folder, _ in found}:
        here = [one for (place, _), one in found.items() if place == folder]
        with_mtl = [one for one in here if one.mtl]
        renamed = [one for one in here if not one.mtl and _from_name(one.stem) is None]
        if len(with_mtl) == len(renamed) == 1 and len(here) == 2 and not with_mtl[0].files:
            product, files = with_mtl[0], renamed[0]
            del found[folder, product.stem], found[folder, files.stem]
            adopted = Product(folder, files.stem, files.files, product.mtl)
            found[folder, files.stem] = adopted


def foreign_rasters(names: Iterable[str], products: Sequence[Product]) -> list[str]:
    """Rasters that belong to no product: taking the source for products would lose them."""
    stems = tuple({product.stem.lower() for product in products})
    visible = filter(_is_visible, names)
    rasters = (name for name in visible if name.lower().endswith(_RASTER_SUFFIXES))
    return [name for name in rasters if not PurePosixPath(name.lower()).name.startswith(stems)]


def identify(source: Source, product: Product) -> tuple[Identity, Mtl | None]:
    """What a product is, and its metadata where it has any.

    Raises:
        UnreadableSourceError: the MTL is damaged, contradicts the files' name, or is of a
            sensor or collection that is not read.
    """
    if product.mtl is None:
        identity = _without_mtl(source, product)
        assert identity is not None, "find_products gives none of these"
        return identity, None
    mtl = read_mtl(source, product.mtl)
    identity = _from_mtl(mtl, product)
    named = _from_name(product.stem)
    if named is not None and not _agree(named, identity):
        raise UnreadableSourceError(
            f"{mtl.shown}: it is the metadata of {identity.id}, but lies with the files of"
            f" {product.stem}"
        )
    return identity, mtl


def _agree(named: Identity, told: Identity) -> bool:
    """Whether a name may be that of the product which the metadata tells of."""
    pairs = (
        (named.satellite, told.satellite),
        (named.level[:2], told.level[:2]),
        (named.wrs_path, told.wrs_path),
        (named.wrs_row, told.wrs_row),
        (named.day, told.day),
    )
    return all(other is None or one == other for one, other in pairs)


def _from_name(stem: str) -> Identity | None:
    """What a name says; of the generation only what it must be by its form."""
    match = _PRODUCT_ID.match(stem) or _SCENE_ID.match(stem)
    if match is None:
        return None
    parts = match.groupdict()
    satellite = int(parts["satellite"])
    sensor = _SENSORS.get((parts["sensor"], satellite >= 8))
    day = _day(parts)
    if sensor is None or day is None or (sensor == "ETM") != (satellite == 7):
        return None
    is_product_id = match.re is _PRODUCT_ID
    level = parts["level"] if is_product_id else "L1"
    collection = parts.get("collection")
    generations: dict[str | None, Generation] = {"01": "c1", "02": "c2", None: "c1"}
    if collection not in generations or (collection == "01" and level.startswith("L2")):
        return None
    return Identity(
        id=stem,
        generation=generations[collection] if is_product_id else "pre-collection",
        level=level,
        sensor=sensor,
        satellite=satellite,
        wrs_path=int(parts["path"]),
        wrs_row=int(parts["row"]),
        day=day,
        scene_id=None if is_product_id else stem,
        tier=parts.get("tier"),
    )


def _day(parts: dict[str, str]) -> date | None:
    try:
        if "date" in parts:
            return datetime.strptime(parts["date"], "%Y%m%d").replace(tzinfo=UTC).date()
        first = date(int(parts["year"]), 1, 1)
        day = first + timedelta(days=int(parts["day"]) - 1)
    except (ValueError, OverflowError):
        return None
    return day if day.year == first.year else None


def _without_mtl(source: Source, product: Product) -> Identity | None:
    """What files without metadata are: their name, or their folder's that agrees, is whole.

    Names that end before the processing date say no collection; then the quality band does.
    """
    identity = _from_name(product.stem)
    if identity is None or identity.tier or identity.generation == "pre-collection":
        return identity
    for name in _folder_names(source, product):
        whole = _from_name(name)
        if whole is not None and whole.tier and name.startswith(f"{product.stem}_"):
            return whole
    if "QA_PIXEL" in product.files or identity.level.startswith("L2"):
        return replace(identity, generation="c2")
    return identity if "BQA" in product.files else None


def _folder_names(source: Source, product: Product) -> tuple[str, ...]:
    """What the product's folder, or the archive itself, is called."""
    own = product.folder.rpartition("/")[2]
    outer = re.sub(r"\.(zip|tar|tgz|tar\.\w+)$", "", source.local.name, flags=re.IGNORECASE)
    return (own, outer) if own else (outer,)


def _from_mtl(mtl: Mtl, product: Product) -> Identity:
    level = (mtl.text("PROCESSING_LEVEL") or mtl.text("DATA_TYPE") or "").upper()
    generation = _generation(mtl)
    if not re.fullmatch(r"L1[A-Z]{0,2}|L2S[PR]", level) or (
        level.startswith("L2") and generation != "c2"
    ):
        raise UnreadableSourceError(
            f"{mtl.shown}: processing level {level!r} of {generation}: expected L1.., or L2SP or"
            " L2SR of collection 2"
        )
    spacecraft = re.fullmatch(r"LANDSAT_?([45789])", mtl.text("SPACECRAFT_ID") or "", re.IGNORECASE)
    sensor = (mtl.text("SENSOR_ID") or "").replace("+", "").upper()
    if spacecraft is None or sensor not in SENSORS:
        raise UnreadableSourceError(
            f"{mtl.shown}: spacecraft {mtl.text('SPACECRAFT_ID')!r}, sensor"
            f" {mtl.text('SENSOR_ID')!r}: expected LANDSAT_4, 5, 7, 8 or 9 with one of"
            f" {', '.join(SENSORS)}"
        )
    scene_id = mtl.level_1_text("LANDSAT_SCENE_ID")
    own = mtl.text("LANDSAT_PRODUCT_ID") if generation != "pre-collection" else scene_id
    ids = (own, product.stem, PurePosixPath(product.mtl or "").name[: -len("_MTL.txt")])
    named = next((found for one in ids if one and (found := _from_name(one))), None)
    if named is None:
        raise UnreadableSourceError(
            f"{mtl.shown}: no product id: LANDSAT_PRODUCT_ID is"
            f" {mtl.text('LANDSAT_PRODUCT_ID')!r}, LANDSAT_SCENE_ID {scene_id!r}"
        )
    if named.level[:2] != level[:2] or (named.tier and named.generation != generation):
        raise UnreadableSourceError(
            f"{mtl.shown}: {named.id} is no {level} product of {generation}, as it says elsewhere"
        )
    return Identity(
        id=named.id,
        generation=generation,
        level=level,
        sensor=next(one for one in SENSORS if one == sensor),
        satellite=int(spacecraft[1]),
        wrs_path=mtl.whole_number("WRS_PATH"),
        wrs_row=mtl.whole_number("WRS_ROW"),
        day=_acquired(mtl),
        scene_id=scene_id,
        tier=mtl.text("COLLECTION_CATEGORY"),
    )


def _generation(mtl: Mtl) -> Generation:
    number = mtl.whole_number("COLLECTION_NUMBER")
    generations: dict[int | None, Generation] = {None: "pre-collection", 1: "c1", 2: "c2"}
    if number not in generations:
        raise UnreadableSourceError(f"{mtl.shown}: collection {number}, expected 1 or 2")
    return generations[number]


def _acquired(mtl: Mtl) -> date | None:
    text = mtl.text("DATE_ACQUIRED")
    try:
        return date.fromisoformat(text) if text is not None else None
    except ValueError:
        raise UnreadableSourceError(
            f"{mtl.shown}: DATE_ACQUIRED is {text!r}, expected a date"
        ) from None
