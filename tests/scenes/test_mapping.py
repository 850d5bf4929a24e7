import os
import resource
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject

from flora.errors import FloraError, FloraWarning
from flora.predictors import Prediction
from flora.scenes import inputs as scene_inputs
from flora.scenes.inputs import open_scene
from flora.scenes.mapping import map_scene
from flora.scenes.outputs import LAYERS
from flora.scenes.reading import SceneReading
from flora.scenes.strips import read_strip
from flora.scenes.tiles import Axis, Tiling, rise, tile_starts
from flora.sensors import SENTINEL1, SENTINEL2_BANDS

UTM = CRS.from_epsg(32630)
GRID = Affine(10.0, 0.0, 600000.0, 0.0, -10.0, 4400000.0)
WET, LAND = -26.0, -14.0  # dB, VH


def moved(columns, rows):
    """`GRID` with its origin moved by so many pixels."""
    return Affine(10.0, 0.0, 600000.0 + 10 * columns, 0.0, -10.0, 4400000.0 - 10 * rows)


def by_vh(sar, valid, guide):
    """A pointwise model: dark in VH is water, bright in VV is green."""
    green = torch.sigmoid(sar[:, :1])
    rgb = torch.cat([green / 2, green, green / 3], 1)
    return Prediction(torch.sigmoid(-3 * sar[:, 1:]), rgb)


def map_file(path, out, model, *, before_path=None, tile=512, overlap=None, batch=4, **options):
    """Open a scene, and the image from before the flood if there is one, and map it."""
    tiling = Tiling(tile, overlap, batch)
    names = {field.name for field in fields(SceneReading)} & options.keys()
    reading = SceneReading(**{name: options.pop(name) for name in names}, before=before_path)
    with reading.opened(path) as (scene, before):
        return map_scene(scene, out, model, before=before, tiling=tiling, **options)


def write_tif(path, values, *, crs=UTM, transform=GRID, **options):
    values = np.asarray(values)
    bands, height, width = values.shape
    profile = dict(driver="GTiff", count=bands, height=height, width=width, dtype=values.dtype)
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, **options) as file:
        file.write(values)
    return path


def flooded(height=300, width=260, seed=0):
    """VV and VH in dB with speckle: land, and a lake in the middle."""
    random = np.random.default_rng(seed)
    vh = np.full((height, width), LAND)
    vh[height // 4 : height // 2, width // 4 : width // 2] = WET
    vh += random.normal(0, 1, vh.shape)
    return np.stack([vh + 7, vh]).astype(np.float32)


def reflectance(height, width, seed=1):
    """B4, B3, B2, B8 with values that name their pixel, smooth enough to resample."""
    row, column = np.mgrid[:height, :width] / max(height, width)
    bands = [800 + 1500 * row, 700 + 900 * column, 900 + 0 * row, 1000 + 2000 * column]
    return np.stack(bands).astype(np.uint16)


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def everything_in(folder):
    return sorted(folder.rglob("*")) if folder.exists() else []


@pytest.fixture
def scene(tmp_path):
    return write_tif(tmp_path / "scene.tif", flooded())


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.filterwarnings("ignore:.*hold exactly:flora.errors.FloraWarning")
@pytest.mark.parametrize("size", [(1, 1), (7, 1001), (513, 300), (32, 33)])
def test_a_constant_scene_gives_a_constant_answer_at_any_size(tmp_path, out, size):
    values = np.stack([np.full(size, -12.0), np.full(size, -21.0)]).astype(np.float32)
    path = write_tif(tmp_path / "constant.tif", values)
    result = map_file(path, out, by_vh, tile=64, overlap=24, batch=3)

    expected = torch.sigmoid(torch.tensor(-3 * (-21.0 + 20.0) / 6.0)).item()
    probability = read(result.water_probability)
    assert probability.shape == (1, *size)
    np.testing.assert_allclose(probability, expected, rtol=1e-6)
    assert np.ptp(read(result.rgb).reshape(4, -1), axis=1).tolist() == [0, 0, 0, 0]
    assert result.valid_pixels == result.water_pixels == size[0] * size[1]
    assert result.water_km2 == pytest.approx(size[0] * size[1] * 1e-4, rel=1e-3)


def test_tiles_do_not_show_for_a_pointwise_model(scene, out):
    tiled = map_file(scene, out / "tiled", by_vh, tile=96, overlap=32, batch=2)
    whole = map_file(scene, out / "whole", by_vh, tile=512)
    np.testing.assert_allclose(
        read(tiled.water_probability), read(whole.water_probability), atol=1e-6
    )
    np.testing.assert_array_equal(read(tiled.water_mask), read(whole.water_mask))
    assert np.abs(read(tiled.rgb).astype(int) - read(whole.rgb)).max() <= 1
    assert tiled.water_km2 == pytest.approx(whole.water_km2)


@pytest.mark.filterwarnings("ignore:.*hold exactly:flora.errors.FloraWarning")
def test_blending_leaves_no_step_where_tiles_disagree(tmp_path, out):
    """Each tile answers with its own constant: the worst model there is for seams."""
    flat = np.full((2, 40, 832), -12, np.float32)
    flat[0] = -6
    path = write_tif(tmp_path / "flat.tif", flat)
    constants = [0.2, 0.8, 0.3, 0.9, 0.1, 0.7, 0.4, 0.9, 0.2, 0.6, 0.1, 0.5]
    steps = []
    for overlap in (0, 32):
        tiles = iter(constants)

        def predict(sar, valid, guide, tiles=tiles):
            return Prediction(torch.full_like(sar[:, :1], next(tiles)))

        made = map_file(path, out / str(overlap), predict, tile=64, overlap=overlap, batch=1)
        steps.append(np.abs(np.diff(read(made.water_probability)[0], axis=1)).max())
    assert next(tiles, None) is None
    assert steps[0] > 0.5
    # The slope of sin^2 over n pixels is at most pi / (2 n), and half of the overlap is blended.
    assert steps[1] <= 0.8 * np.pi / 32 + 1e-5


def test_where_tiles_overlap_one_rises_as_the_other_falls():
    for blended in (0, 1, 7, 64):
        weights = rise(blended)
        np.testing.assert_allclose(weights + weights[::-1], 1, atol=1e-6)
        assert (weights > 0).all()
    # sin^2 of pi/8 and 3 pi/8
    assert rise(2).tolist() == pytest.approx([0.1464, 0.8536], abs=1e-4)
    # The margin is a quarter of the overlap, and more where that would leave more than 32 px.
    axis = Axis.cut(896, Tiling(512, 64))
    assert (axis.margin, axis.blended) == (16, 32)
    assert axis.cores == [slice(0, 496), slice(464, 896)]
    axis = Axis.cut(704, Tiling(512))
    assert (axis.margin, axis.blended) == (112, 32)
    assert axis.cores == [slice(0, 400), slice(368, 704)]


def test_tiles_cover_the_scene_and_the_last_one_is_cut_to_what_is_left():
    for length in range(1, 3000, 7):
        for tile, overlap in ((512, 128), (64, 16), (96, 32), (50, 0), (33, 7)):
            axis = Axis.cut(length, Tiling(tile, overlap))
            steps = np.diff(axis.starts)
            assert axis.starts[0] == 0 and length <= axis.places[-1].stop < length + 64
            assert (steps > 0).all() and (steps <= tile - overlap).all()
            if tile - overlap >= 64:
                assert (np.array(axis.starts) % 64 == 0).all()
            if len(axis.starts) > 1:  # it has something of its own
                assert axis.places[-1].stop > axis.places[-2].stop
                assert axis.places[-2].stop - axis.starts[-1] >= overlap
    assert tile_starts(512, Tiling(512, 128)) == [0]
    assert tile_starts(513, Tiling(512, 128)) == [0, 384]
    assert tile_starts(1000, Tiling(512, 128)) == [0, 384, 768]
    assert tile_starts(896, Tiling(512, 128)) == [0, 384]
    assert tile_starts(300, Tiling(200, 20)) == [0, 128]  # 180 px apart would not be on the grid
    assert Axis.cut(513, Tiling(512, 128)).places == [slice(0, 512), slice(384, 576)]


def test_tiles_of_a_part_begin_where_those_of_the_scene_may():
    for origin in (0, 30, 64, 1000):
        axis = Axis.cut(500, Tiling(256, 64), origin)
        assert all((origin - axis.before + start) % 64 == 0 for start in axis.starts)
        assert 0 <= axis.before < 64 and axis.end >= axis.mapped.stop
    # The first tile lacks 30 px before the part, the last one 46 px after it.
    axis = Axis.cut(500, Tiling(256, 64), 30)
    assert axis.inside(0, 256) == (slice(0, 226), (30, 0))
    assert axis.inside(axis.starts[-1], axis.end) == (slice(354, 500), (0, 46))


def test_the_shares_of_tiles_sum_to_one_at_every_pixel():
    for length, tiling in ((500, Tiling(256, 64)), (700, Tiling(190, 95)), (90, Tiling(128, 60))):
        axis = Axis.cut(length, tiling)
        total = np.zeros(axis.end)
        for core, share in zip(axis.cores, axis.shares(), strict=True):
            total[core] += share
        np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("row", [1, 2, 5])
def test_a_strip_is_the_same_whether_the_one_above_is_read_again_or_not(tmp_path, row):
    rng = np.random.default_rng(0)
    values = rng.normal(-12, 3, (2, 500, 140)).astype(np.float32)
    values[1] -= 7
    values[:, 100:130, 50:60] = np.nan
    with open_scene(write_tif(tmp_path / "s.tif", values)) as scene:
        down, across = Axis.cut(500, Tiling(128, 48)), Axis.cut(140, Tiling(128, 48).across)
        above = read_strip(scene, None, down, across, row - 1)
        alone = read_strip(scene, None, down, across, row)
        after = read_strip(scene, None, down, across, row, above)
    np.testing.assert_array_equal(after.sar, alone.sar)
    np.testing.assert_array_equal(after.valid, alone.valid)


def test_dry_water_and_nodata_stay_three_values(tmp_path, out):
    values = flooded()
    values[0, :20] = np.nan  # one band is enough
    values[1, :, -9:] = -999
    values[1, 250, 100] = np.inf
    path = write_tif(tmp_path / "gaps.tif", values, nodata=-999)
    result = map_file(path, out, by_vh, tile=128, overlap=32)

    nodata = np.zeros(values.shape[1:], bool)
    nodata[:20] = nodata[:, -9:] = nodata[250, 100] = True
    mask, rgb = read(result.water_mask)[0], read(result.rgb)
    probability = read(result.water_probability)[0]
    assert set(np.unique(mask)) == {0, 1, 255}
    np.testing.assert_array_equal(mask == 255, nodata)
    np.testing.assert_array_equal(np.isnan(probability), nodata)
    np.testing.assert_array_equal(rgb[3] == 0, nodata)
    assert (rgb[:3, nodata] == 0).all()
    np.testing.assert_array_equal(mask[~nodata] == 1, probability[~nodata] >= 0.5)
    assert result.valid_pixels == (~nodata).sum()
    with rasterio.open(result.water_mask) as file:
        assert file.nodata == 255
        np.testing.assert_array_equal(file.read_masks(1) == 0, nodata)


def test_what_lies_in_nodata_changes_nothing(tmp_path, out):
    values = flooded()
    answers = []
    for filler in (np.nan, np.inf, -999.0):
        values[:, 100:140, 50:90] = filler
        path = write_tif(tmp_path / f"filled{len(answers)}.tif", values, nodata=-999)
        # A model with context, so that nodata could leak into its neighbours.
        blur = torch.nn.AvgPool2d(5, 1, 2)
        made = map_file(
            path,
            out,
            lambda sar, *_: Prediction(torch.sigmoid(-blur(sar[:, 1:]))),  # noqa: B023
        )
        answers.append(read(made.water_probability))
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, GRID),
        (CRS.from_epsg(4326), Affine(8.983152841195215e-05, 0, -0.78, 0, -8.983e-05, 38.1)),
        (UTM, Affine(9.5, 3.1, 600000.0, 3.1, -9.5, 4400000.0)),
    ],
)
def test_maps_lie_on_the_scenes_own_grid(tmp_path, out, crs, transform):
    path = write_tif(tmp_path / "scene.tif", flooded(), crs=crs, transform=transform)
    result = map_file(path, out, by_vh)
    for made in (result.water_probability, result.water_mask, result.rgb):
        with rasterio.open(made) as file, rasterio.open(path) as source:
            assert file.shape == source.shape
            assert file.crs == source.crs
            assert file.transform.almost_equals(source.transform, 1e-9)


def test_maps_are_tiled_compressed_and_have_overviews_of_their_kind(tmp_path, out):
    path = write_tif(tmp_path / "scene.tif", flooded(700, 520))
    result = map_file(path, out, by_vh)
    kinds = {"water_probability": "float32", "water_mask": "uint8", "rgb": "uint8"}
    for name, kind in kinds.items():
        with rasterio.open(getattr(result, name)) as file:
            assert set(file.dtypes) == {kind}
            assert file.count == len(LAYERS[name].bands)
            assert file.profile["tiled"] and file.profile["compress"] == "deflate"
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.overviews(1) == [2, 4]
    with rasterio.open(result.water_mask, overview_level=1) as file:
        assert set(np.unique(file.read())) <= {0, 1, 255}
    probability = read(result.water_probability)[0]
    with rasterio.open(result.water_probability, overview_level=0) as file:
        mean = probability[:700, :520].reshape(350, 2, 260, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(file.read(1), mean, atol=1e-5)
    with Image.open(result.quicklook) as picture:
        assert picture.height > picture.width  # the water below the two others


def test_a_quicklook_stays_small_however_large_the_scene(tmp_path, out):
    path = write_tif(tmp_path / "long.tif", flooded(3100, 60))
    with Image.open(map_file(path, out, by_vh).quicklook) as picture:
        assert max(picture.size) < 2000


def test_rows_are_read_a_strip_at_a_time(tmp_path, out, monkeypatch):
    path = write_tif(tmp_path / "tall.tif", flooded(900, 80), tiled=True, blockxsize=16)
    sizes = []
    read_bands = scene_inputs.read_bands

    def counting(dataset, *args, **options):
        values = read_bands(dataset, *args, **options)
        if "window" in options:
            sizes.append(values.shape)
        return values

    monkeypatch.setattr(scene_inputs, "read_bands", counting)
    map_file(path, out, by_vh, tile=64, overlap=16)
    assert len(sizes) > 900 / 64
    assert max(shape[-2] for shape in sizes) == 64


def test_progress_counts_every_tile_and_empty_tiles_are_not_predicted(tmp_path, out):
    values = flooded(256, 256)
    values[:, :128] = np.nan
    path = write_tif(tmp_path / "half.tif", values)
    seen, predicted = [], []

    def predict(sar, valid, guide):
        predicted.append(len(sar))
        return by_vh(sar, valid, guide)

    def progress(done, total):
        seen.append((done, total))

    result = map_file(path, out, predict, tile=64, overlap=0, batch=3, progress=progress)
    assert seen == [(done, 8) for done in (2, 4, 6, 8)]
    assert sum(predicted) == 4  # tiles are twice as wide as high
    assert (read(result.rgb)[3, :128] == 0).all()
    assert (read(result.rgb)[3, 128:] == 255).all()


def test_linear_power_is_converted_and_its_zero_border_is_nodata(tmp_path, out):
    decibel = flooded()
    power = 10 ** (decibel / 10)
    power[:, :, :30] = 0
    linear = write_tif(tmp_path / "linear.tif", power)
    result = map_file(linear, out, by_vh, units="linear")
    reference = map_file(write_tif(tmp_path / "db.tif", decibel), out, by_vh)
    probability = read(result.water_probability)
    assert np.isnan(probability[..., :30]).all()
    np.testing.assert_allclose(
        probability[..., 30:], read(reference.water_probability)[..., 30:], atol=1e-5
    )


def test_untagged_zero_in_db_is_a_value(tmp_path, out):
    values = flooded()
    values[:, :5] = 0
    result = map_file(write_tif(tmp_path / "zero.tif", values), out, by_vh)
    assert result.valid_pixels == values[0].size


# Areas


@pytest.mark.filterwarnings("ignore:.*hold exactly:flora.errors.FloraWarning")
def test_area_is_that_of_the_water(tmp_path, out):
    values = np.full((2, 50, 80), LAND, np.float32)
    values[0] += 7
    values[:, 10:20, 10:40] = WET
    values[:, 30:] = np.nan
    result = map_file(write_tif(tmp_path / "lake.tif", values), out, by_vh, tile=32, overlap=8)
    assert (result.water_pixels, result.valid_pixels) == (300, 2400)
    assert (result.water_km2, result.valid_km2) == pytest.approx((0.03, 0.24), rel=1e-3)


def test_without_a_crs_areas_are_pixels_only(tmp_path, out):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write_tif(tmp_path / "plain.tif", flooded(), crs=None, transform=Affine.identity())
    with pytest.warns(FloraWarning, match="no CRS"):
        result = map_file(path, out, by_vh)
    assert result.water_km2 is None and result.valid_km2 is None
    assert result.water_pixels > 0


# The image from before the flood


def before_to_rgb(sar, valid, guide):
    seen = guide.valid[:, None].float()
    return Prediction((guide.index + 1) / 2 * seen, guide.image)


def test_before_reaches_the_model_as_image_index_and_validity(scene, tmp_path, out):
    bands = reflectance(300, 260)
    bands[:, :40] = 0
    path = write_tif(tmp_path / "before.tif", bands, nodata=0)
    result = map_file(scene, out, before_to_rgb, before_path=path, tile=128)
    expected = np.rint(np.clip(bands[:3] / 3000, 0, 1) * 255)
    assert np.abs(read(result.rgb)[:3] - expected).max() <= 1
    red, infrared = bands[0].astype(float), bands[3].astype(float)
    ndvi = np.divide(infrared - red, infrared + red, out=-np.ones_like(red), where=red > 0)
    np.testing.assert_allclose(read(result.water_probability)[0], (ndvi + 1) / 2, atol=1e-5)


def test_a_model_brings_the_threshold_of_its_maps_and_its_training(scene, tmp_path, out):
    class Own:
        """A model that knows its training, and that 0.9 is better than 0.5."""

        def __init__(self):
            self.thresholds, self.trained_on = {"sar": 0.9}, "floods"

        def __call__(self, sar, valid, guide):
            return by_vh(sar, valid, guide)

    def wet(**options):
        result = map_file(scene, out, Own(), overwrite=True, **options)
        with rasterio.open(result.water_mask) as mask:
            assert mask.tags()["FLORA_WATER_THRESHOLD"] == f"{options.get('threshold', least):g}"
            assert mask.tags()["FLORA_TRAINED_ON"] == "floods"
        (chance,), (codes,) = read(result.water_probability), read(result.water_mask)
        np.testing.assert_array_equal(codes == 1, chance >= options.get("threshold", least))
        return result.water_pixels

    least = 0.9
    own, even = wet(), wet(threshold=0.5)
    assert 0 < own < even
    image = write_tif(tmp_path / "before.tif", reflectance(300, 260), nodata=0)
    least = 0.5
    assert wet(before_path=image) == even


def test_before_bands_are_found_by_position_or_by_name(scene, tmp_path, out):
    bands = dict(zip(("B4", "B3", "B2", "B8"), reflectance(300, 260), strict=True))
    level1c = np.stack([bands.get(name, np.full((300, 260), 77)) for name in SENTINEL2_BANDS])
    paths = [write_tif(tmp_path / "l1c.tif", level1c.astype(np.uint16))]
    paths.append(write_tif(tmp_path / "four.tif", np.stack(list(bands.values()))))
    named = write_tif(
        tmp_path / "named.tif", np.stack([bands[b] for b in ("B2", "B3", "B4", "B8")])
    )
    with rasterio.open(named, "r+") as file:
        file.descriptions = ("B02", "B03", "B04", "B08")
    made = [
        read(map_file(scene, out / path.stem, before_to_rgb, before_path=path).rgb)
        for path in (*paths, named)
    ]
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


def test_before_in_another_crs_is_aligned(scene, tmp_path, out):
    """A field that is linear in the scene's coordinates, stored in degrees, comes back linear."""
    bands = reflectance(500, 460).astype(np.float32)
    around = moved(-100, -100)
    degrees = Affine(1.1e-4, 0, -1.86, 0, -0.9e-4, 39.76)
    stored = np.zeros((4, 700, 600), np.float32)
    grids = {"src_transform": around, "src_crs": UTM, "dst_transform": degrees}
    reproject(bands, stored, dst_crs="EPSG:4326", resampling=Resampling.cubic, **grids)
    path = write_tif(tmp_path / "degrees.tif", stored, crs="EPSG:4326", transform=degrees)

    result = map_file(scene, out, before_to_rgb, before_path=path, tile=128)
    expected = np.clip(bands[:3, 100:400, 100:360] / 3000, 0, 1) * 255
    # One pixel is 1500 / 500 / 3000 x 255 = 0.26 grey levels: 0.6 is rounding plus a third of one.
    assert np.abs(read(result.rgb)[:3] - expected).max() < 0.6


def test_before_that_ends_within_the_scene_is_invalid_beyond(scene, tmp_path, out):
    shifted = moved(60, 0)
    path = write_tif(tmp_path / "before.tif", reflectance(300, 260), transform=shifted)
    result = map_file(scene, out, before_to_rgb, before_path=path)
    probability = read(result.water_probability)[0]
    assert (probability[:, :59] == 0).all()
    assert (probability[:, 61:] > 0).all()


# Refusals: each names its cause, and leaves nothing


def _broken(tmp_path, case):
    """A path and the options that map_scene is to refuse."""
    db, path = flooded(), tmp_path / "bad.tif"
    power = 10 ** (db / 10)
    if case == "missing":
        return path, {}
    if case == "no raster":
        path.write_text("VV,VH\n-12,-20\n")
        return path, {}
    if case == "truncated":
        write_tif(path, db)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path, {}
    if case == "negative power":
        return write_tif(path, db), {"units": "linear"}
    if case.startswith("before"):
        write_tif(path, db)
        before = {
            "before elsewhere": dict(transform=moved(9000, 0)),
            "before without crs": dict(crs=None, transform=moved(1, 0)),
        }.get(case, {})
        values = reflectance(300, 260)
        if case == "before bands":
            values = values[:3]
        if case == "before unscaled":
            values = (values / 10000).astype(np.float32)
        if case == "before empty":
            values = values * 0
        return path, {"before_path": write_tif(tmp_path / "before.tif", values, **before)}
    values = {
        "one band": db[:1],
        "all nodata": np.full_like(db, np.nan),
        "all zero": np.zeros_like(db),
        "power": power,
        "counts": (1000 * power).astype(np.uint16) + 50,
        "scaled": (100 * db).astype(np.int16),
        "complex": (db + 1j).astype(np.complex64),
    }.get(case, db)
    options = {
        "tile": {"tile": 0},
        "overlap": {"overlap": 300},
        "threshold": {"threshold": 1.5},
        "units": {"units": "watt"},
    }
    return write_tif(path, values), options.get(case, {})


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "no such file"),
        ("no raster", "not a raster"),
        ("truncated", "truncated or damaged"),
        ("one band", "1 bands, expected 2 in the order VV, VH"),
        ("all nodata", "no pixel was measured"),
        ("all zero", "no pixel was measured"),
        ("power", 'linear power, expected dB.*units="linear"'),
        ("negative power", 'dB, expected linear power.*units="db"'),
        ("counts", "digital numbers"),
        ("scaled", "scaled by 100"),
        ("complex", "complex"),
        ("before bands", "3 bands without names, expected 13"),
        ("before elsewhere", "does not overlap"),
        ("before without crs", "no CRS"),
        ("before unscaled", "reflectance x 10000"),
        ("before empty", "no valid pixel"),
        ("tile", "tile 0"),
        ("overlap", "half of tile"),
        ("threshold", "threshold 1.5"),
        ("units", "units 'watt'"),
    ],
)
def test_refused_before_anything_is_written(tmp_path, out, case, message):
    path, options = _broken(tmp_path, case)

    def never(sar, valid, guide):
        raise AssertionError("computed before checking")

    with pytest.raises(FloraError, match=message):
        map_file(path, out, never, **options)
    assert not out.exists()


def test_the_few_measured_pixels_of_a_large_scene_are_found(tmp_path, out):
    values = np.full((2, 2500, 40), np.nan, np.float32)
    values[:, 1801:1803, 7] = [[-12.0], [-26.0]]  # missed by a reading of every third pixel
    values[:, 1801] = values[:, 1802] = np.nan
    values[:, 1801, 7] = -12, -26
    result = map_file(write_tif(tmp_path / "sparse.tif", values), out, by_vh, tile=256)
    assert (result.valid_pixels, result.water_pixels) == (1, 1)


def test_swapped_polarisations_are_a_warning(tmp_path, out):
    path = write_tif(tmp_path / "swapped.tif", flooded()[::-1])
    with pytest.warns(FloraWarning, match="probably swapped"):
        map_file(path, out, by_vh)


def test_existing_results_are_kept_unless_told_otherwise(scene, out):
    first = map_file(scene, out, by_vh)
    before = first.water_mask.read_bytes()
    with pytest.raises(FloraError, match="overwrite=True"):
        map_file(scene, out, by_vh, threshold=0.1)
    assert first.water_mask.read_bytes() == before
    second = map_file(
        scene, out, lambda *tiles: Prediction(by_vh(*tiles).water), threshold=1e-6, overwrite=True
    )
    assert (read(second.water_mask) == 1).all()
    assert second.rgb is None and not first.rgb.exists()
    assert len(everything_in(out)) == 3


class Stop(Exception):
    pass


@pytest.mark.parametrize("failure", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_midway_leaves_nothing(scene, out, failure, existing):
    if existing:
        out.mkdir()
        (out / "mine.txt").write_text("kept")
    calls = []

    def predict(sar, valid, guide):
        calls.append(1)
        if len(calls) == 4:
            assert any(path.is_dir() for path in out.glob(".flora-*"))  # it is being written
            raise failure
        return by_vh(sar, valid, guide)

    with pytest.raises(failure):
        map_file(scene, out, predict, tile=64, overlap=16, batch=2)
    assert [path.name for path in everything_in(out)] == (["mine.txt"] if existing else [])
    assert out.exists() == existing


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda sar: Prediction(sar[:, 1:]), "sigmoid"),
        (lambda sar: Prediction(sar[:, 1:] * np.nan), "finite"),
        (lambda sar: Prediction(torch.sigmoid(sar)), "shape"),
        (lambda sar: Prediction(torch.sigmoid(sar[:, 1:]), torch.sigmoid(sar)), "rgb of shape"),
    ],
)
def test_a_model_that_gives_no_probability_is_refused(scene, out, answer, message):
    with pytest.raises(FloraError, match=message):
        map_file(scene, out, lambda sar, valid, guide: answer(sar))
    assert not out.exists()


def test_a_file_in_place_of_the_folder_is_refused(scene, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    for folder in (blocked, blocked / "below"):
        with pytest.raises(FloraError, match=f"output_folder {folder}"):
            map_file(scene, folder, by_vh)
    assert blocked.read_text() == ""


FULL_DISK = """
import resource, signal, sys, torch
from flora import map_scene, open_scene
from flora.predictors import Prediction
from flora.errors import FloraError
import matplotlib.font_manager  # writes its cache once, before the limit
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
noise = lambda sar, valid, guide: Prediction(torch.rand(sar[:, :1].shape))
for limit in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with open_scene(sys.argv[1]) as scene:
            map_scene(scene, sys.argv[2], noise)
    except FloraError as error:
        print("refused:", error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a POSIX file size limit")
def test_a_full_disk_is_refused_and_leaves_nothing(out, tmp_path):
    """No file may grow beyond a limit: the rows do not fit, or only just, or the map does not.

    GDAL reports the first; at the others it closes a truncated file without a word.
    """
    scene = write_tif(tmp_path / "scene.tif", flooded(700, 700))

    def noise(sar, valid, guide):
        return Prediction(torch.rand(sar[:, :1].shape))

    fits = map_file(scene, tmp_path / "fits", noise)
    size = fits.water_probability.stat().st_size
    assert fits.quicklook.stat().st_size < 0.8 * size
    limits = [str(int(share * size)) for share in (0.1, 0.8, 0.97)]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(scene), str(out), *limits],
        capture_output=True,
        text=True,
        timeout=60,
    )
    refused = f"refused: output_folder {out}: cannot be written"
    assert [line.startswith(refused) for line in done.stdout.splitlines()] == [True] * 3, done
    assert not out.exists()


# The real chip

CHIP = Path("sen1floods11/v1.1/data/flood_events/HandLabeled")


@pytest.fixture
def chip():
    root = os.environ.get("FLORA_DATA")
    if not root or not (Path(root) / CHIP).is_dir():
        pytest.skip("needs FLORA_DATA with the Sen1Floods11 chip Spain_7370579")
    return lambda layer: Path(root) / CHIP / layer / f"Spain_7370579_{layer}.tif"


def test_the_real_chip_is_mapped_with_its_own_before_image(chip, out):
    def predict(sar, valid, guide):
        assert SENTINEL1.restore(sar[0].numpy()).mean() < -10
        return Prediction(torch.sigmoid(-3 * (sar[:, 1:] + 1)), guide.image)

    before = chip("S2Hand")
    result = map_file(chip("S1Hand"), out, predict, before_path=before, tile=256)
    water, label = read(result.water_mask)[0], read(chip("LabelHand"))[0]
    known = label >= 0
    overlap = ((water == 1) & (label == 1) & known).sum()
    union = (((water == 1) | (label == 1)) & known).sum()
    assert overlap / union > 0.4  # a threshold on VH alone
    assert 20 < result.valid_km2 < 21
    red = np.clip(read(before)[3] / 3000, 0, 1) * 255
    assert np.abs(read(result.rgb)[0] - red).max() <= 0.51
