"""Reading one tile: straight into arrays, at other pixel sizes, with clouds and radiometry."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from affine import Affine

from geostore.errors import CorruptDataError, InvalidInputError, NotFoundError
from geostore.query import Query
from geostore.types import BandRole, CloudRule, TileRow
from geostore.wrangle import in_threads, parse_bands, read_tile, unknown_name
from geostore.wrangle.reading import plan_bands
from tests.fake_backend import FakeBackend, band

CELL = "dq8x0"
RAMP = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) + 1
COARSE = np.arange(16 * 16, dtype=np.uint16).reshape(16, 16) + 1000


def rows_of(backend: FakeBackend) -> list[TileRow]:
    return [row for batch in backend.query(Query()) for row in batch.rows()]


@pytest.fixture
def backend() -> FakeBackend:
    made = FakeBackend()
    made.make_dataset()
    return made


def two_groups(backend: FakeBackend) -> TileRow:
    half = np.zeros((16, 16), bool)
    half[:, :8] = True
    backend.put(
        CELL,
        {
            160: [
                band("B04", RAMP, common_name="red"),
                band("B08", RAMP + 5000, common_name="nir"),
            ],
            320: [band("B11", COARSE, half, common_name="swir16")],
        },
    )
    return rows_of(backend)[0]


def test_one_group_comes_as_stored_with_its_place(backend) -> None:
    array = read_tile(backend, two_groups(backend), ["B08", "red"])
    assert array.bands == ("B08", "red")
    assert array.data.dtype == np.uint16
    np.testing.assert_array_equal(array.data, [RAMP + 5000, RAMP])
    assert array.mask.dtype == bool
    assert array.mask.shape == array.data.shape
    assert array.mask.all()
    assert array.crs == "EPSG:4326"
    west, south, east, north = array.bounds
    # dq8x0's corner and size, by the geohash's own bits: 5 characters are 13 + 12 bits.
    assert (east - west, north - south) == pytest.approx((360 / 2**13, 180 / 2**12), abs=1e-12)
    assert array.transform == Affine(
        (east - west) / 32, 0.0, west, 0.0, (south - north) / 32, north
    )


def test_all_bands_in_stored_order_is_the_default(backend) -> None:
    array = read_tile(backend, two_groups(backend))
    assert array.bands == ("B04", "B08", "B11")
    assert array.data.shape == (3, 32, 32)


def test_one_call_fetches_all_and_only_what_is_asked(backend) -> None:
    row = two_groups(backend)
    read_tile(backend, row, "B08")
    plan = plan_bands(row.schema, ("B08",))[0]
    assert backend.reads == [[*plan.data_blocks, *plan.mask_blocks]]


def test_a_coarser_band_is_repeated(backend) -> None:
    array = read_tile(backend, two_groups(backend), ["B04", "B11"])
    np.testing.assert_array_equal(array.data[1], COARSE.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(array.mask[1, :, :16], True)
    np.testing.assert_array_equal(array.mask[1, :, 16:], False)


def test_a_finer_band_is_averaged(backend) -> None:
    array = read_tile(backend, two_groups(backend), ["B04"], resolution=320)
    expected = RAMP.reshape(16, 2, 16, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(array.data[0], np.rint(expected).astype(np.uint16))


def test_the_default_is_the_finest_group_among_those_asked(backend) -> None:
    row = two_groups(backend)
    assert read_tile(backend, row, ["B11"]).data.shape == (1, 16, 16)
    assert read_tile(backend, row, ["B11", "B04"]).data.shape == (2, 32, 32)


@pytest.mark.parametrize(
    ("resolution", "side"), [(160, 32), (320, 16), (80, 64), (100, 64), (640, 8), (500, 16)]
)
def test_any_resolution_is_a_whole_factor_of_the_finest(backend, resolution, side) -> None:
    array = read_tile(backend, two_groups(backend), ["B04", "B11"], resolution)
    assert array.data.shape == (2, side, side)
    assert array.bounds == pytest.approx(read_tile(backend, rows_of(backend)[0]).bounds)


def test_a_scene_without_the_finest_bands_is_read_on_the_datasets_lattice(backend) -> None:
    backend.put(CELL, {320: [band("B11", COARSE)]})
    array = read_tile(backend, rows_of(backend)[0], resolution=160)
    assert array.data.shape == (1, 32, 32)


def test_class_and_quality_bands_have_no_mean(backend) -> None:
    codes = np.tile(np.array([[3, 9], [8, 4]], np.uint8), (16, 16))
    backend.put(
        CELL,
        {
            160: [
                band("SCL", codes, dtype="uint8", role=BandRole.CLASS),
                band("QA", codes, dtype="uint8", role=BandRole.QUALITY),
            ]
        },
    )
    array = read_tile(backend, rows_of(backend)[0], resolution=320)
    assert set(np.unique(array.data)) == {4}  # the pixel under (or just after) the centre


def test_reads_into_a_given_array(backend) -> None:
    row = two_groups(backend)
    wide = np.zeros((2, 32, 64), np.uint16)
    array = read_tile(backend, row, ["B04", "B08"], out=wide[:, :, 16:48])
    assert array.data.base is wide
    np.testing.assert_array_equal(wide[0, :, 16:48], RAMP)
    assert not wide[:, :, :16].any()
    assert not wide[:, :, 48:].any()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((1, 32, 32), np.uint16),
        np.zeros((2, 32, 32), np.int16),
        [[0]],
        np.broadcast_to(np.uint16(0), (2, 32, 32)),
    ],
)
def test_a_wrong_out_says_what_is_right(backend, out) -> None:
    with pytest.raises(InvalidInputError, match=r"out is|a numpy array"):
        read_tile(backend, two_groups(backend), ["B04", "B08"], out=out)


def test_dtypes_that_hold_each_other_come_as_the_wider(backend) -> None:
    backend.put(
        CELL,
        {160: [band("a", 300), band("b", 7, dtype="uint8"), band("c", -5, dtype="int16")]},
    )
    row = rows_of(backend)[0]
    assert read_tile(backend, row, ["a", "b"]).data.dtype == np.uint16
    array = read_tile(backend, row, ["a", "c"])
    assert array.data.dtype == np.int32
    assert array.data[:, 0, 0].tolist() == [300, -5]


def test_nothing_becomes_float64_by_itself(backend) -> None:
    backend.put(CELL, {160: [band("a", 2**31 - 1, dtype="int32"), band("b", 0.5, dtype="float32")]})
    row = rows_of(backend)[0]
    with pytest.raises(InvalidInputError, match="float32, int32"):
        read_tile(backend, row)
    assert read_tile(backend, row, "a").data[0, 0, 0] == 2**31 - 1
    assert read_tile(backend, row, reflectance=True).data.dtype == np.float32


def test_reflectance_is_float32_with_nan_where_not_valid(backend) -> None:
    valid = np.ones((32, 32), bool)
    valid[0, 0] = False
    stored = np.where(valid, RAMP + 1000, 0)
    backend.put(CELL, {160: [band("B04", stored, valid, scale=1e-4, offset=-0.1)]})
    array = read_tile(backend, rows_of(backend)[0], reflectance=True)
    assert array.data.dtype == np.float32
    assert np.isnan(array.data[0, 0, 0])
    expected = (RAMP[0, 1:].astype(float) + 1000) * 1e-4 - 0.1
    np.testing.assert_allclose(array.data[0, 0, 1:], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(array.mask[0], valid)


def test_harmonize_takes_the_offset_out_in_counts(backend) -> None:
    valid = RAMP > 3
    stored = np.where(valid, RAMP, 0)
    backend.put(CELL, {160: [band("B04", stored, valid, scale=1e-4, offset=-0.1)]})
    array = read_tile(backend, rows_of(backend)[0], harmonize=True)
    assert array.data.dtype == np.uint16
    np.testing.assert_array_equal(
        array.data[0][valid], np.clip(stored.astype(int) - 1000, 0, None)[valid]
    )
    assert (array.data[0][~valid] == 0).all()
    np.testing.assert_array_equal(array.mask[0], valid)


def test_cloud_mask_by_class_applies_at_any_pixel_size(backend) -> None:
    classes = np.full((16, 16), 4, np.uint8)
    classes[:8] = 9
    backend.put(
        CELL,
        {
            160: [band("B04", RAMP)],
            320: [band("SCL", classes, dtype="uint8", role=BandRole.CLASS)],
        },
        cloud_method="SCL 8,9,10",
    )
    row = rows_of(backend)[0]
    plain = read_tile(backend, row, "B04")
    assert plain.mask.all()
    clear = read_tile(backend, row, "B04", cloud_mask=True)
    assert not clear.mask[0, :16].any()
    assert clear.mask[0, 16:].all()
    assert (clear.data[0, :16] == 0).all()
    np.testing.assert_array_equal(clear.data[0, 16:], RAMP[16:])


def test_cloud_mask_by_likelihood_follows_the_datasets_threshold(backend) -> None:
    likelihood = np.linspace(0, 100, 32 * 32).astype(np.uint8).reshape(32, 32)
    for threshold in (30, 70):
        made = FakeBackend()
        made.make_dataset(cloud_rule=CloudRule("likelihood", threshold))
        made.put(
            CELL,
            {
                160: [
                    band("B04", RAMP),
                    band("CLD", likelihood, dtype="uint8", nodata=None, role=BandRole.LIKELIHOOD),
                ]
            },
        )
        array = read_tile(made, rows_of(made)[0], "B04", cloud_mask=True)
        np.testing.assert_array_equal(array.mask[0], likelihood < threshold)


def test_cloud_mask_needs_something_that_tells_clouds(backend) -> None:
    with pytest.raises(InvalidInputError, match="no band tells clouds"):
        read_tile(backend, two_groups(backend), cloud_mask=True)


def test_an_unknown_band_names_the_known_and_the_likeliest(backend) -> None:
    with pytest.raises(NotFoundError, match=r"'B4'.*did you mean 'B04'.*Known: B04, B08, B11"):
        read_tile(backend, two_groups(backend), ["B4"])
    assert "did you mean 'red'" in unknown_name("band", "RED", ["red", "nir"])


@pytest.mark.parametrize("resolution", [0, -10, float("nan"), float("inf"), "ten", True, 1e-3])
def test_a_resolution_that_cannot_be_is_refused(backend, resolution) -> None:
    with pytest.raises(InvalidInputError, match="resolution"):
        read_tile(backend, two_groups(backend), ["B04"], resolution)


@pytest.mark.parametrize("bands", [[], ["B04", "B04"], [""], [4], 7])
def test_bands_must_be_different_names(bands) -> None:
    with pytest.raises(InvalidInputError, match="bands"):
        parse_bands(bands)


def test_flipped_bits_are_never_served(backend) -> None:
    row = two_groups(backend)
    tile = backend.tiles[0]
    offset = int(tile.blocks["offset"][0])
    payload = bytearray(tile.payload)
    payload[offset + 40] ^= 1
    object.__setattr__(tile, "payload", bytes(payload))
    with pytest.raises(CorruptDataError, match=f"s2/{CELL}/S1"):
        read_tile(backend, row, ["B04"])
    np.testing.assert_array_equal(read_tile(backend, row, ["B08"]).data[0], RAMP + 5000)


def test_masked_array_and_repr(backend) -> None:
    array = read_tile(backend, two_groups(backend), ["B11"])
    assert array.masked().count() == 128
    assert array.masked().data is not None
    assert "50.0 % valid" in repr(array)


def test_threads_keep_order_and_run_little_ahead() -> None:
    begun: list[int] = []
    gate = threading.Lock()

    def work(item: int) -> int:
        with gate:
            begun.append(item)
        return item * item

    results = in_threads(work, iter(range(100)), workers=3)
    assert next(results) == 0
    assert len(begun) <= 7
    assert list(results) == [number * number for number in range(1, 100)]


def test_a_failure_in_a_thread_is_raised_in_its_place() -> None:
    def work(item: int) -> int:
        if item == 5:
            raise CorruptDataError("five")
        return item

    results = in_threads(work, range(50), workers=2)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(CorruptDataError, match="five"):
        next(results)
