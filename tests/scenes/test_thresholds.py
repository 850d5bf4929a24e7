from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from flora.errors import FloraWarning
from flora.scenes.inputs import open_scene
from flora.scenes.many import map_scenes
from flora.scenes.mapping import map_scene
from flora.scenes.thresholds import SceneOtsu, explained
from flora.scenes.tiles import Tiling
from tests.support.fake_scenes import write_scene

WATER, LAND = (-19.0, -27.0), (-10.0, -17.0)  # dB: VV, VH


def two_populations(shape: tuple[int, int], wet: float = 0.4, seed: int = 0) -> np.ndarray:
    """(2, rows, columns): water in the left share `wet` of the columns, land to its right."""
    mean = np.where(
        np.arange(shape[1]) < wet * shape[1],
        np.array(WATER)[:, None, None],
        np.array(LAND)[:, None, None],
    )
    speckle = np.random.default_rng(seed).normal(0, 1.5, (2, *shape))
    return (np.broadcast_to(mean, (2, *shape)) + speckle).astype(np.float32)


def mapped(path: Path, out: Path, tile: int = 1024) -> tuple[np.ndarray, dict[str, str]]:
    with open_scene(path) as scene:
        outputs = map_scene(scene, out, SceneOtsu().of(scene), tiling=Tiling(tile))
    assert outputs.rgb is None
    with rasterio.open(outputs.water_mask) as file:
        return file.read(1), file.tags()


def test_one_threshold_between_the_two_populations_divides_the_scene(tmp_path):
    path = write_scene(tmp_path / "S1.tif", two_populations((160, 200)))
    mask, tags = mapped(path, tmp_path / "out")
    assert -27 < float(tags["FLORA_OTSU_VH_BELOW_DB"]) < -17
    columns = mask.mean(axis=0)
    np.testing.assert_array_equal(columns[:76], 1)  # the filter reaches over four pixels
    np.testing.assert_array_equal(columns[84:], 0)


def test_tiles_do_not_show_and_a_tile_of_land_alone_stays_dry(tmp_path):
    path = write_scene(tmp_path / "S1.tif", two_populations((200, 520)))
    whole, one = mapped(path, tmp_path / "one")
    tiled, many = mapped(path, tmp_path / "many", tile=128)
    np.testing.assert_array_equal(tiled, whole)
    assert one == many
    assert not whole[:, 256:].any()  # a threshold of each tile's own would halve its land


def test_a_scene_larger_than_its_sample_has_the_threshold_of_every_nth_pixel(tmp_path):
    values = two_populations((64, 2100))
    with open_scene(write_scene(tmp_path / "S1.tif", values)) as scene:
        assert scene.sample_step == 3
        found = SceneOtsu().of(scene)
    assert -27 < float(found.tags["FLORA_OTSU_VH_BELOW_DB"]) < -17


def test_nodata_neither_counts_nor_is_mapped(tmp_path):
    values = two_populations((120, 120))
    values[:, :60] = np.nan
    holed, _ = mapped(write_scene(tmp_path / "holed.tif", values), tmp_path / "out")
    part, _ = mapped(write_scene(tmp_path / "part.tif", values[:, 60:]), tmp_path / "out")
    assert (holed[:60] == 255).all() and (holed[60:] < 2).all()
    np.testing.assert_array_equal(holed[64:], part[4:])


def test_a_scene_of_land_alone_is_said_to_be_hardly_divided(tmp_path):
    speckle = np.random.default_rng(1).normal(0, 2, (2, 100, 100))
    values = (np.array(LAND)[:, None, None] + speckle).astype(np.float32)
    path = write_scene(tmp_path / "land.tif", values)
    with (
        open_scene(path) as scene,
        pytest.warns(FloraWarning, match="land is taken for water"),
    ):
        SceneOtsu().of(scene)


def test_share_explained_of_a_normal_population_is_two_over_pi():
    values = np.random.default_rng(0).normal(0, 3, 200_000).astype(np.float32)
    assert explained(values, 0.0) == pytest.approx(2 / np.pi, abs=0.005)
    assert explained(values, 1e9) == 0
    assert explained(np.zeros(4, np.float32), 0.0) == 0


def test_far_pixels_change_nothing_but_the_threshold(tmp_path):
    with open_scene(write_scene(tmp_path / "S1.tif", two_populations((64, 64)))) as scene:
        predict = SceneOtsu().of(scene)
    sar = torch.randn(1, 2, 64, 64)
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    before = predict(sar, valid, None).water
    sar[..., 40:] = -9
    after = predict(sar, valid, None).water
    assert not torch.equal(before, after)
    assert torch.equal(before[..., :36], after[..., :36])


def test_many_scenes_have_a_threshold_each(tmp_path):
    dark = two_populations((96, 96)) - 3
    paths = [
        write_scene(tmp_path / "in" / "a.tif", two_populations((96, 96))),
        write_scene(tmp_path / "in" / "b.tif", dark),
    ]
    reports = map_scenes(paths, tmp_path / "out", SceneOtsu)
    found = []
    for report in reports:
        with rasterio.open(report.outputs.water_mask) as file:
            found.append(float(file.tags()["FLORA_OTSU_VH_BELOW_DB"]))
    assert found[0] - found[1] == pytest.approx(3, abs=0.02)
