"""Offsets between radar and optical images, on fields drawn by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

from flora.errors import FloraError
from flora.scenes.align import Offset, find_offset, scene_offset
from flora.scenes.before import open_before
from flora.scenes.inputs import open_scene
from flora.sensors import BoolArray, FloatArray
from tests.support.fake_data import write_raster

UTM = "EPSG:32630"
GRID = Affine(10, 0, 600_000, 0, -10, 4_400_000)


def fields(seed: int = 0) -> np.ndarray:
    """(128, 128) of fields 8 px wide, each of one value in [0, 1]."""
    return np.kron(np.random.default_rng(seed).random((16, 16)), np.ones((8, 8)))


def radar(ground: np.ndarray) -> np.ndarray:
    """VV and VH of a ground, dark where it is bright, under speckle of four looks."""
    speckle = np.random.default_rng(9).gamma(4.0, 0.25, (2, *ground.shape))
    return -15.0 - 10.0 * ground + 10.0 * np.log10(speckle)


def moved(ground: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The ground as an image that lies `rows` down and `columns` to the right; NaN beside it."""
    image = np.full(ground.shape, np.nan)
    height, width = ground.shape
    image[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = ground[
        max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return image[None]


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (5, -3), (-8, 0), (0, 11), (-16, 16)])
def test_a_known_offset_is_found(rows: int, columns: int):
    found = find_offset(radar(fields()), moved(fields(), rows, columns))
    assert found is not None
    assert (found.rows, found.columns) == (rows, columns)


def test_brightness_does_not_matter():
    ground = fields()
    stretched = 3000.0 * (1.0 - ground) + 200.0
    found = find_offset(radar(ground), moved(stretched, 4, 2))
    assert found is not None and found[:2] == (4, 2)


@pytest.mark.parametrize("other", [fields(1), np.full((128, 128), 0.3)], ids=["elsewhere", "blank"])
def test_no_guess_where_the_images_share_no_edge(other: np.ndarray):
    assert find_offset(radar(fields()), other[None]) is None


def test_no_guess_from_a_sliver():
    optical = moved(fields(), 0, 0)
    assert find_offset(radar(fields()), optical) is not None
    optical[:, :, 16:] = np.nan
    assert find_offset(radar(fields()), optical) is None


def test_cloud_leaves_enough_to_tell():
    optical = moved(fields(), -3, 6)
    optical[:, 20:70, 10:90] = np.nan
    found = find_offset(radar(fields()), optical)
    assert found is not None and found[:2] == (-3, 6)


def test_other_sizes_are_refused():
    with pytest.raises(FloraError, match="128 x 128"):
        find_offset(radar(fields()), np.zeros((1, 64, 128)))
    with pytest.raises(FloraError, match="64 px or more"):
        find_offset(radar(fields())[:, :32], np.zeros((1, 32, 128)))


# --- whole scenes -------------------------------------------------------------------------------


class Held:
    """A scene, or an image on it, in memory."""

    def __init__(self, layers: np.ndarray) -> None:
        self.layers = layers
        self.shape: tuple[int, int] = layers.shape[1:]
        self.asked: list[int] = []

    def read(self, row: int, height: int) -> FloatArray:
        self.asked.append(row)
        return self.layers[:, row : row + height]

    def scale(self, values: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        return values, values[:1], np.isfinite(values).all(axis=0)


class HeldRadar(Held):
    def read(self, row: int, height: int):
        values = super().read(row, height)
        return values, np.isfinite(values).all(axis=0)


def test_blocks_of_a_scene_speak_together():
    """Four strips of a tall scene; in one of them alone the speckle hides the offset."""
    side = np.kron(np.random.default_rng(0).random((280, 65)), np.ones((8, 8)))
    noisy = np.random.default_rng(1).normal(-15, 4, (1, *side.shape)) - 2 * side[None]
    scene, image = HeldRadar(noisy), Held(moved(side, 3, -5))
    found = scene_offset(scene, image)
    assert found is not None and found[:2] == (3, -5)
    assert scene.asked == image.asked == [0, 576, 1152, 1728]
    alone = scene_offset(HeldRadar(noisy[:, :512]), Held(moved(side, 3, -5)[:, :512]))
    assert alone is not None and alone.confidence < found.confidence


def test_a_scene_too_small_or_unseen_has_no_offset():
    image = moved(fields(), 2, 2)
    assert scene_offset(HeldRadar(radar(fields())), Held(image)) is not None
    assert scene_offset(HeldRadar(radar(fields())[:, :60]), Held(image[:, :60])) is None
    assert scene_offset(HeldRadar(radar(fields())), Held(np.full_like(image, np.nan))) is None


def test_cloud_does_not_speak():
    """Patches of cloud lie elsewhere, and their edges are brighter than those of the ground."""
    image = 1000 * moved(fields(), 4, 0).repeat(4, axis=0)
    cloudy = image + 5000 * (moved(fields(1), 0, -9) > 0.8)
    found = scene_offset(HeldRadar(radar(fields())), Held(cloudy))
    assert found is not None and found.clear and found[:2] == (4, 0)


@pytest.mark.parametrize(
    ("offset", "trusted"),
    [((2, 0, 6.0), True), ((0, -2, 6.0), True), ((1, -1, 20.0), False), ((0, 9, 5.9), False)],
)
def test_what_is_trusted(offset: tuple[int, int, float], trusted: bool):
    assert Offset(*offset).trusted is trusted


def on_disk(folder: Path, right: int, down: int) -> tuple[Path, Path]:
    """A radar scene, and an image whose georeference says that it lies further right and down."""
    ground = fields().astype(np.float32)
    beside = Affine(10, 0, GRID.c + 10 * right, 0, -10, GRID.f - 10 * down)
    bands = np.stack([500 + 3000 * ground, 700 + 2000 * ground, 600 + 900 * ground, 4000 - ground])
    sar = radar(ground) + np.array([5, -5])[:, None, None]  # VV is brighter than VH
    return (
        write_raster(folder / "S1.tif", sar.astype(np.float32), np.nan, GRID, UTM),
        write_raster(folder / "S2.tif", bands.astype(np.float32), 0, beside, UTM),
    )


@pytest.mark.parametrize("align", [True, False])
def test_an_image_beside_is_read_moved_back(tmp_path: Path, align: bool):
    sar, optical = on_disk(tmp_path, right=5, down=-3)
    with open_scene(sar) as scene, open_before(optical, scene, align=align) as before:
        assert before.alignment.offset is not None
        assert before.alignment.offset[:2] == (-3, 5)
        assert before.tags["FLORA_BEFORE_OFFSET_ROWS"] == "-3"
        assert before.tags["FLORA_BEFORE_ALIGNED"] == ("yes" if align else "no")
        with before.reopen() as again:
            values, identity = again.read(0, 128), again.identity()
            assert again.tags == before.tags
    red = 500 + 3000 * fields()
    if align:
        np.testing.assert_allclose(values[0], red, atol=0.5)
        assert identity["moved"][:2] == (-3, 5)
    else:
        np.testing.assert_allclose(values[0, :-3, 5:], red[3:, :-5], atol=0.5)
        assert np.isnan(values[0, :, :5]).all() and identity["moved"] is None


def test_one_pixel_is_left_alone(tmp_path: Path):
    sar, optical = on_disk(tmp_path, right=1, down=1)
    with open_scene(sar) as scene, open_before(optical, scene) as before:
        assert before.alignment.offset is not None
        assert before.alignment.offset[:2] == (1, 1)
        assert not before.alignment.applied and before.grid is scene.grid
