"""Imagine images with their pixels in a second file, in every packing, and hostile names."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.errors import UnreadableSourceError
from geostore.scenes import Scene, Source, detect, open_source
from geostore.scenes.spill import Spill, spill_of
from tests.unit.test_raster_imagine import PIXELS, write_image

NAME = "large_image_with_spill.ige"


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with an image and its second file, and nothing else."""
    folder = tmp_path / "pair"
    folder.mkdir()
    write_image(folder / NAME.replace(".ige", ".img"), USE_SPILL="YES")
    return folder


@pytest.fixture
def image(pair: Path) -> Path:
    return pair / NAME.replace(".ige", ".img")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where unpacked and linked files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def zipped(folder: Path, name: str = "z.zip", inside: str = "") -> Path:
    path = folder.parent / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for file in folder.iterdir():
            target.write(file, f"{inside}{file.name}")
    return path


def pixels(scene: Scene) -> np.ndarray:
    return scene.bands[0].source.read(0, 0, *PIXELS.shape[1:])[0]


def rename_inside(image: Path, name: bytes) -> None:
    """Makes the image name another second file."""
    content = image.read_bytes()
    assert content.count(NAME.encode()) == 1
    image.write_bytes(content.replace(NAME.encode(), name.ljust(len(NAME), b"\0")))


@pytest.mark.parametrize("inside", ["", "folder/"])
def test_the_same_scene_beside_each_other_and_in_archives(
    pair: Path, image: Path, temporary: Path, inside: str
) -> None:
    paths = [image, zipped(pair, inside=inside)]
    paths.extend(Path(shutil.make_archive(str(pair), kind, pair)) for kind in ("tar", "gztar"))
    scenes = [open_source(path)[0] for path in paths]
    for scene in scenes:
        np.testing.assert_array_equal(pixels(scene), PIXELS[0])
    assert len({(scene.id, scene.fingerprint) for scene in scenes}) == 1
    for scene in scenes:
        scene.close()
    assert list(temporary.iterdir()) == []


def test_the_second_files_bytes_are_part_of_the_fingerprint(pair: Path, image: Path) -> None:
    (before,) = open_source(image)
    before.close()
    spill = pair / NAME
    raw = bytearray(spill.read_bytes())
    raw[-1] ^= 1
    spill.write_bytes(raw)
    (after,) = open_source(image)
    after.close()
    assert before.fingerprint != after.fingerprint
    with Source(image) as source:
        source.raster(image.name)
        assert source.fingerprint([image.name]) == after.fingerprint
        assert source.names() == [NAME, image.name]


def test_both_renamed_together(pair: Path, image: Path, tmp_path: Path) -> None:
    image.rename(tmp_path / "short.img")
    (pair / NAME).rename(tmp_path / "short.ige")
    (scene,) = open_source(tmp_path / "short.img")
    with scene:
        np.testing.assert_array_equal(pixels(scene), PIXELS[0])


@pytest.mark.parametrize("packed", [False, True])
def test_without_the_second_file(pair: Path, image: Path, temporary: Path, packed: bool) -> None:
    (pair / NAME).unlink()
    path = zipped(pair) if packed else image
    with pytest.raises(UnreadableSourceError, match=f"lie in {NAME}, which is not there"):
        open_source(path)
    assert list(temporary.iterdir()) == []


def test_a_second_file_that_is_something_else(pair: Path, image: Path) -> None:
    (pair / NAME).write_bytes(b"anything" * 10_000)
    with pytest.raises(UnreadableSourceError, match=f"{NAME}, which is no Erdas Imagine spill"):
        open_source(image)


@pytest.mark.parametrize(
    "name",
    [
        b"../secret.ige",
        b"/etc/passwd",
        b"sub/secret.ige",
        b"..\\secret.ige",
        b".secret.ige",
        b"c:secret.ige",
        b"a\nb.ige",
        b"image.img",
        b"",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_name_that_leads_elsewhere(
    pair: Path, image: Path, temporary: Path, name: bytes, packed: bool
) -> None:
    for place in (pair.parent / "secret.ige", pair / "secret.ige", pair / ".secret.ige"):
        shutil.copy(pair / NAME, place)
    rename_inside(image, name)
    path = zipped(pair) if packed else image
    with pytest.raises(UnreadableSourceError, match=r"expected the name of one file beside it"):
        open_source(path)
    assert list(temporary.iterdir()) == []


def test_layers_in_different_second_files(
    pair: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geostore.raster.imagine import ImagineStructure
    from geostore.scenes import spill

    monkeypatch.setattr(spill, "imagine_structure", lambda _: ImagineStructure(("a.ige", "b.ige")))
    with pytest.raises(UnreadableSourceError, match=r"'a\.ige', 'b\.ige'.*one file"):
        open_source(image)


def test_a_second_file_alone_is_no_source(pair: Path) -> None:
    assert detect(pair / NAME) is None


@pytest.mark.parametrize("kind", ["img", "zip", "tar"])
def test_a_truncated_second_file_is_an_error_not_zeros(
    pair: Path, image: Path, temporary: Path, kind: str
) -> None:
    """GDAL itself gives zeros for what is cut off."""
    spill = pair / NAME
    whole = spill.read_bytes()
    spill.write_bytes(whole[:-1])
    path = image if kind == "img" else Path(shutil.make_archive(str(pair), kind, pair))
    with pytest.raises(UnreadableSourceError, match=rf"{len(whole) - 1} bytes.*{len(whole)}"):
        open_source(path)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_length_that_is_expected_is_the_one_that_is_written(
    tmp_path: Path, dtype: str, count: int
) -> None:
    pixels = np.repeat(PIXELS.astype(dtype), count, axis=0)
    path = write_image(tmp_path / "a.img", pixels, USE_SPILL="YES")
    found = spill_of(str(path), "a.img")
    assert found == Spill("a.ige", (tmp_path / "a.ige").stat().st_size)


def test_stored_from_a_folder_and_from_a_zip_it_is_one_scene(pair: Path, tmp_path: Path) -> None:
    with geostore.open(str(tmp_path / "store")) as store:
        results = store.ingest([pair], resolution=[30.0], length=6)
        assert sorted(result.status for result in results) == ["ingested", "skipped"]
        (again,) = store.ingest([zipped(pair)])
        assert (again.status, again.tiles) == ("unchanged", max(one.tiles for one in results))
