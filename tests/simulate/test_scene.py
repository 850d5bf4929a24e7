from __future__ import annotations

import csv
from dataclasses import fields, replace

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from flora.datasets.sen1floods11 import Sen1Floods11
from flora.errors import FloraError
from flora.sensors import SENTINEL2_BANDS, normalised_difference
from flora.simulate.hydrology import drainage_level, flood_extent, route
from flora.simulate.landcover import Cover
from flora.simulate.radar import LookAlikes, acquire, speckle, water_backscatter
from flora.simulate.scene import Scene, draw_parameters, simulate, write_sen1floods11

SIZE = 96
EIGHT = np.ones((3, 3))


def layers(scene: Scene) -> dict[str, np.ndarray]:
    values = {field.name: getattr(scene, field.name) for field in fields(scene)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def plain(seed: int, **sar):
    """A seed's parameters without cloud and border, and with the radar changed."""
    drawn = draw_parameters(seed)
    return replace(
        drawn,
        sar=replace(drawn.sar, border=0, **sar),
        optical=replace(drawn.optical, cloud=(0.0, 0.0)),
    )


def offset(reference: np.ndarray, moved: np.ndarray, reach: int = 8) -> tuple[float, float]:
    """Rows and columns by which `moved` lies away, from the peak of the cross-correlation."""
    window = np.outer(np.hanning(reference.shape[0]), np.hanning(reference.shape[1]))
    first, second = ((image - image.mean()) * window for image in (reference, moved))
    correlation = np.fft.ifft2(np.conj(np.fft.fft2(first)) * np.fft.fft2(second)).real
    near = np.roll(correlation, (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    row, column = np.unravel_index(near[1:-1, 1:-1].argmax(), (2 * reach - 1, 2 * reach - 1))

    def vertex(left: float, top: float, right: float) -> float:
        return 0.5 * (left - right) / (left - 2 * top + right)

    row, column = row + 1, column + 1
    return (
        row - reach + vertex(*near[row - 1 : row + 2, column]),
        column - reach + vertex(*near[row, column - 1 : column + 2]),
    )


# Drainage and flood


def test_height_above_drainage_of_a_v_shaped_valley():
    row, column = np.indices((9, 9))
    ground = 2.0 * abs(column - 4) + 0.1 * (8 - row)
    drainage = route(ground, outlet=8 * 9 + 4)
    hand = ground - drainage_level(drainage, column == 4)
    # Water runs diagonally down: from three columns aside it meets the stream three rows below.
    assert hand[0, 1] == pytest.approx(2.0 * 3 + 0.1 * 3)
    assert hand[4, 6] == pytest.approx(2.0 * 2 + 0.1 * 2)
    assert hand[3, 4] == 0.0
    assert drainage.accumulation[8, 4] == 81


def test_a_depression_fills_to_its_lowest_pass():
    ground = np.full((5, 7), 9.0)
    ground[2] = [0.0, 1.0, 5.0, 2.0, 2.5, 2.0, 8.0]
    drainage = route(ground, outlet=2 * 7)
    np.testing.assert_allclose(drainage.filled[2], [0.0, 1.0, 5.0, 5.0, 5.0, 5.0, 8.0])


def test_a_hollow_behind_a_ridge_stays_dry_until_the_ridge_is_covered():
    hand = np.array([[0.0, 0.5, 3.0, 0.5, 4.0]] * 3, dtype=np.float32)
    river = np.zeros(hand.shape, dtype=bool)
    river[:, 0] = True
    assert flood_extent(hand, river, 1.0).sum() == 3
    assert flood_extent(hand, river, 3.5)[0].tolist() == [False, True, True, True, False]
    assert not flood_extent(hand, river, 0.0).any()


@pytest.mark.parametrize("seed", range(4))
def test_water_grows_with_the_stage_and_hangs_together_with_permanent_water(seed):
    parameters = plain(seed)
    previous, areas = None, []
    for stage in (0.0, 0.5, 1.5, 4.0):
        scene = simulate(seed, SIZE, replace(parameters, stage=stage))
        if previous is not None:
            assert not (previous.flood & ~scene.flood).any()
            assert not (previous.water_after & ~scene.water_after).any()
        reachable = ndimage.label((scene.hand < stage) | scene.permanent, structure=EIGHT)[0]
        connected = np.isin(reachable, np.unique(reachable[scene.permanent]))
        assert not (scene.flood & ~connected).any()
        assert not (scene.flood & scene.permanent).any()
        assert (scene.hand[scene.flood] < stage).all()
        areas.append(int(scene.flood.sum()))
        previous = scene
    assert areas[0] == 0 < areas[1] < areas[3]


def test_the_flood_reaches_for_the_share_asked_for():
    shares = []
    for seed in range(8):
        scene, dry = (simulate(seed, SIZE, replace(plain(seed), flooded=f)) for f in (0.2, 0.0))
        assert not dry.flood.any()
        share = float(scene.flood.sum() / (~scene.permanent).sum())
        # Roads, levelled fields and hollows apart stay dry; only the smallest flood covers more.
        assert 0.0 < share <= 0.201 or scene.stage == pytest.approx(0.2)
        shares.append(share)
    assert 0.08 < np.mean(shares) < 0.3


# A season of dates


def test_a_season_is_of_one_place_and_changes_nothing_else():
    alone, season = simulate(5, SIZE, plain(5)), simulate(5, SIZE, plain(5), earlier=3)
    assert alone.sar_earlier.shape == (0, 2, SIZE, SIZE)
    assert season.sar_earlier.shape == (3, 2, SIZE, SIZE)
    for name, values in layers(alone).items():
        if name != "sar_earlier":
            assert values.tobytes() == getattr(season, name).tobytes(), name
    # More dates reach further back; those that were there stay.
    longer = simulate(5, SIZE, plain(5), earlier=4)
    np.testing.assert_array_equal(longer.sar_earlier[:3], season.sar_earlier)
    settled = season.land_cover == Cover.FOREST
    for date in season.sar_earlier:
        difference = date[:, settled] - season.sar_before[:, settled]
        assert abs(difference.mean()) < 0.5  # forest is the same place on every date
        assert difference.std() > 1.0  # with speckle of its own


def test_fields_turn_green_and_water_rough_by_date():
    drawn = plain(3, speckle=False)
    drawn = replace(drawn, cover=replace(drawn.cover, crop=8.0, forest=0.0, vigour=1.0))
    scene = simulate(3, SIZE, drawn, earlier=8)
    crop, water = scene.land_cover == Cover.CROP, scene.permanent
    by_date = scene.sar_earlier[:, 0]
    assert by_date[:, crop].mean(axis=1).std() > 0.3
    assert by_date[:, water].mean(axis=1).std() > 1.0
    built = scene.land_cover == Cover.SETTLEMENT  # neither grows nor dries, but its edges do
    assert by_date[:, crop].mean(axis=1).std() > 2 * by_date[:, built].mean(axis=1).std()


def test_a_negative_number_of_dates_is_refused():
    with pytest.raises(FloraError, match="0 or more dates"):
        simulate(3, SIZE, earlier=-1)


# The scene as a whole


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, again, other = simulate(5, SIZE), simulate(5, SIZE), simulate(6, SIZE)
    assert len(layers(first)) == 17
    for name, values in layers(first).items():
        assert values.tobytes() == layers(again)[name].tobytes(), name
    assert first.sar_after.tobytes() != other.sar_after.tobytes()


def test_changing_one_layer_leaves_the_others_alone():
    drawn = plain(7)
    cloudy = replace(drawn, optical=replace(drawn.optical, cloud=(0.3, 0.3)))
    silent = replace(drawn, sar=replace(drawn.sar, speckle=False))
    scene, clouded, quiet = (simulate(7, SIZE, p) for p in (drawn, cloudy, silent))
    assert clouded.cloud_after.mean() > 0.1
    clear = ~ndimage.binary_dilation(clouded.cloud_after | clouded.shadow_after, iterations=25)
    np.testing.assert_allclose(
        scene.optical_after[:, clear], clouded.optical_after[:, clear], atol=0.02
    )
    np.testing.assert_array_equal(scene.sar_after, clouded.sar_after)
    np.testing.assert_array_equal(scene.optical_after, quiet.optical_after)
    assert np.abs(scene.sar_after - quiet.sar_after).mean() > 1.0


@pytest.mark.parametrize("size", [32, (33, 71), (150, 64)])
def test_layers_have_the_size_asked_for_and_finite_values(size):
    scene = simulate(3, size, plain(3))
    rows, columns = (size, size) if isinstance(size, int) else size
    for name, values in layers(scene).items():
        assert values.shape[-2:] == (rows, columns), name
        assert np.isfinite(values).all(), name
    assert scene.optical_after.shape[0] == len(SENTINEL2_BANDS)
    assert scene.optical_after.min() > 0.0
    assert scene.sar_after.dtype == scene.optical_after.dtype == np.float32


def test_masks_agree_with_each_other():
    for seed in range(6):
        scene = simulate(seed, SIZE)
        assert not (scene.flooded_vegetation & scene.water_after).any()
        assert not (scene.flooded_vegetation & ~scene.flood).any()
        np.testing.assert_array_equal(scene.water_before, scene.permanent)
        assert not (scene.water_after & ~(scene.permanent | scene.flood)).any()
        assert set(np.unique(scene.land_cover)) <= {int(kind) for kind in Cover}
        np.testing.assert_array_equal(scene.land_cover == Cover.WATER, scene.permanent)


def test_wrong_arguments_are_refused():
    with pytest.raises(FloraError, match=r"size 31.*32"):
        simulate(0, 31)
    with pytest.raises(FloraError, match="seed -1"):
        simulate(-1, 64)


# Radar


def test_speckle_has_the_looks_and_the_correlation_asked_for():
    rng = np.random.default_rng(0)
    for looks, resolution in ((4.4, 1.1), (4.0, 1.3), (1.0, 1.0)):
        power = speckle(rng, (512, 512), looks, resolution)
        assert power.mean() == pytest.approx(1.0, abs=1e-4)
        assert 1.0 / power.var() == pytest.approx(looks, rel=0.05)
        deviation = power - 1.0
        lag = (deviation[:, 1:] * deviation[:, :-1]).mean() / power.var()
        # The blur is sampled at whole pixels and cut at three deviations.
        assert lag == pytest.approx(np.exp(-0.5 / resolution**2), abs=0.03)


def test_a_homogeneous_field_shows_the_looks_and_the_noise_floor():
    parameters = replace(
        plain(0).sar, looks=4.4, nesz=(-24.0, -24.0), noise_removed=0.0, calibration=(0.0, 0.5)
    )
    sigma0 = np.full((2, 300, 300), 10 ** (-30.0 / 10), dtype=np.float32)
    sigma0[0] = 0.1
    image = 10 ** (acquire(np.random.default_rng(1), sigma0, parameters) / 10)
    for band in image:
        assert band.mean() ** 2 / band.var() == pytest.approx(4.4, rel=0.08)
    assert 10 * np.log10(image[0].mean()) == pytest.approx(10 * np.log10(0.1 + 10**-2.4), abs=0.05)
    # -30 dB under noise of -24 dB reads -23.0 dB, and the calibration adds its 0.5.
    assert 10 * np.log10(image[1].mean()) == pytest.approx(-23.03 + 0.5, abs=0.06)


def test_water_brightens_with_wind_and_stays_below_the_wind_law_of_the_sea():
    wind = np.array([1.0, 5.0, 15.0], dtype=np.float32)
    vv, vh = (10 * np.log10(power) for power in water_backscatter(wind, 38.0))
    assert (np.diff(vv) > 0).all()
    assert vv[1] == pytest.approx(-20.0, abs=1e-4)
    assert vh[1] == pytest.approx(-35.6 + 0.592 * 5, abs=1e-4)
    steep = 10 * np.log10(water_backscatter(wind, 30.0)[0])
    np.testing.assert_allclose(steep - vv, 3.2, atol=1e-4)


def test_water_is_darker_than_land():
    differences = []
    for seed in range(8):
        scene = simulate(seed, SIZE)
        seen = np.isfinite(scene.sar_after).all(axis=0)
        water, land = scene.water_after & seen, ~scene.water_after & seen
        differences.append(
            [float(band[land].mean() - band[water].mean()) for band in scene.sar_after]
        )
    vv, vh = np.array(differences).T
    assert vh.mean() > 5.0
    assert (vh > 0.0).all()
    assert vv.mean() > 4.0


def test_water_under_plants_brightens_vv_by_double_bounce():
    seed = next(s for s in range(40) if simulate(s, SIZE).flooded_vegetation.sum() > 400)
    still = plain(seed, speckle=False, moisture=(0.4, 0.4), double_bounce=1.0)
    still = replace(still, cover=replace(still.cover, interval=0))
    scene = simulate(seed, SIZE, still)
    inside = ndimage.binary_erosion(scene.flooded_vegetation, EIGHT)
    change = scene.sar_after - scene.sar_before
    assert change[0][inside].mean() > change[1][inside].mean() > 0.0
    dry = ndimage.binary_erosion(~scene.flood & ~scene.permanent, EIGHT, iterations=3)
    np.testing.assert_allclose(change[:, dry], 0.0, atol=0.3)


def test_the_border_has_no_data_in_either_polarisation():
    drawn = plain(2)
    scene = simulate(2, SIZE, replace(drawn, sar=replace(drawn.sar, border=20)))
    missing = np.isnan(scene.sar_after)
    np.testing.assert_array_equal(missing[0], missing[1])
    assert missing[0][0].sum() == 20
    assert not missing[0][:, 21:].any()


# Registration


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -2.0), (-0.5, 1.5)])
def test_a_known_misregistration_is_found_again(shift):
    parameters = replace(plain(4, speckle=False), misregistration=shift)
    reference, moved = simulate(4, 128, plain(4, speckle=False)), simulate(4, 128, parameters)
    assert offset(reference.sar_after[0], moved.sar_after[0]) == pytest.approx(shift, abs=0.2)
    np.testing.assert_array_equal(reference.optical_after, moved.optical_after)
    np.testing.assert_array_equal(reference.water_after, moved.water_after)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (4.0, -3.0)])
def test_radar_lies_on_the_optical_image_but_for_the_misregistration(shift):
    scene = simulate(4, 128, replace(plain(4), misregistration=shift))
    near_infrared = scene.optical_after[SENTINEL2_BANDS.index("B8")]
    found = offset(near_infrared, ndimage.gaussian_filter(scene.sar_after[1], 1.0))
    assert found == pytest.approx(shift, abs=1.0)


# Optical


def test_plants_and_water_have_their_spectra():
    scene = simulate(1, 128, plain(1))
    red, green, near_infrared, shortwave = (
        scene.optical_after[SENTINEL2_BANDS.index(name)] for name in ("B4", "B3", "B8", "B11")
    )
    inner = ndimage.binary_erosion(scene.permanent, EIGHT, iterations=2)
    forest = (scene.land_cover == Cover.FOREST) & ~scene.flood
    ndvi = normalised_difference(near_infrared, red)
    mndwi = normalised_difference(green, shortwave)
    assert ndvi[forest].mean() > 0.3 > 0.0 > ndvi[inner].mean()
    assert mndwi[inner].mean() > 0.5 > 0.0 > mndwi[forest].mean()


def test_cloud_is_bright_and_its_shadow_dark():
    drawn = plain(9)
    cloudy = replace(drawn, optical=replace(drawn.optical, cloud=(0.0, 0.3), sun_elevation=45.0))
    clear, scene = simulate(9, 128, drawn), simulate(9, 128, cloudy)
    blue = SENTINEL2_BANDS.index("B2")
    change = scene.optical_after[blue] - clear.optical_after[blue]
    assert scene.cloud_after.mean() == pytest.approx(0.3, abs=0.06)
    assert change[scene.cloud_after].mean() > 0.2
    assert change[scene.shadow_after].mean() < -0.003
    assert not scene.cloud_before.any()


# Files


def test_chips_are_written_as_sen1floods11_stores_them(tmp_path):
    labels = write_sen1floods11({"train": [1, 2], "test": [3], "bolivia": []}, tmp_path, size=64)
    assert [path.name for path in labels] == [f"Simulated_{n}_LabelHand.tif" for n in (1, 2, 3)]
    lists = tmp_path / "v1.1" / "splits" / "flood_handlabeled"
    with (lists / "flood_train_data.csv").open() as handle:
        rows = list(csv.reader(handle))
    assert rows == [[f"Simulated_{n}_S1Hand.tif", f"Simulated_{n}_LabelHand.tif"] for n in (1, 2)]
    chips = tmp_path / "v1.1" / "data" / "flood_events" / "HandLabeled"
    expected = {"S1Hand": ("float32", 2), "S2Hand": ("int16", 13), "LabelHand": ("int16", 1)}
    for layer, (dtype, count) in expected.items():
        with rasterio.open(chips / layer / f"Simulated_1_{layer}.tif") as chip:
            assert (chip.dtypes[0], chip.count) == (dtype, count)
            assert chip.crs == "EPSG:4326"
            assert chip.transform.a == -chip.transform.e == 8.983152841195215e-05
            if layer == "LabelHand":
                assert set(np.unique(chip.read())) <= {-1, 0, 1}
    assert not list(tmp_path.rglob("*.part"))

    dataset = Sen1Floods11(tmp_path, "train")
    sample, scene = dataset[0], simulate(1, 64)
    seen = np.isfinite(scene.sar_after).all(axis=0)
    np.testing.assert_array_equal(sample["water"].numpy()[seen], scene.water_after[seen])
    restored = dataset.sar_scaling.restore(sample["sar"].numpy())
    np.testing.assert_allclose(restored[:, seen], scene.sar_after[:, seen], atol=1e-3)
    clear = sample["optical_valid"].numpy()
    red = scene.optical_after[SENTINEL2_BANDS.index("B4")] / 0.3
    np.testing.assert_allclose(
        sample["optical"].numpy()[0][clear], red[clear].clip(0, 1), atol=2e-4
    )


def test_a_seed_in_two_splits_or_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(FloraError, match="twice"):
        write_sen1floods11({"train": [1], "test": [1]}, tmp_path)
    with pytest.raises(FloraError, match="holdout"):
        write_sen1floods11({"holdout": [1]}, tmp_path)
    assert not list(tmp_path.iterdir())


# Beside the real thing


def test_scenes_cover_the_backscatter_of_a_real_chip(flora_data):
    folder = flora_data / "sen1floods11" / "v1.1" / "data" / "flood_events" / "HandLabeled"
    with rasterio.open(folder / "S1Hand" / "Spain_7370579_S1Hand.tif") as chip:
        real = chip.read()
    with rasterio.open(folder / "LabelHand" / "Spain_7370579_LabelHand.tif") as chip:
        label = chip.read(1)
    scenes = [simulate(seed, SIZE) for seed in range(12)]
    for code in (0, 1):
        for band in range(2):
            medians = [
                np.nanmedian(scene.sar_after[band][scene.water_after == code]) for scene in scenes
            ]
            assert min(medians) < np.nanmedian(real[band][label == code]) < max(medians)


def test_speckle_is_that_of_a_real_chip_of_even_ground(flora_data):
    with rasterio.open(flora_data / "terramesh" / "S1RTC" / "609U_541L_3_0.tif") as chip:
        real = 10 ** (chip.read(1) / 10)

    def correlation(power: np.ndarray, lag: int) -> float:
        # The window takes out the ground's own texture, and a little of the speckle's.
        detail = power / ndimage.uniform_filter(power, 9) - 1.0
        return float((detail[:, lag:] * detail[:, :-lag]).mean() / detail.var())

    def looks(power: np.ndarray) -> float:
        mean = ndimage.uniform_filter(power, 9)
        return float(np.median(mean**2 / (ndimage.uniform_filter(power**2, 9) - mean**2)))

    simulated = speckle(np.random.default_rng(0), real.shape, 4.4, 1.2)
    for lag in (1, 2):
        assert correlation(simulated, lag) == pytest.approx(correlation(real, lag), abs=0.06)
    assert looks(simulated) == pytest.approx(looks(real), rel=0.08)


def test_look_alikes_darken_land_and_leave_all_else_alone():
    drawn = draw_parameters(7)
    plain = replace(drawn, sar=replace(drawn.sar, look_alikes=LookAlikes(), border=0))
    scene = simulate(7, 128, plain)

    def with_some(**values):
        return simulate(
            7, 128, replace(plain, sar=replace(plain.sar, look_alikes=LookAlikes(**values)))
        )

    snowy = with_some(snow=0.6, snow_drop=6.0)
    fell = scene.sar_after[0] - snowy.sar_after[0]  # VH is near the noise floor, and falls less
    under = fell > 1
    assert 0.2 < under.mean() < 0.7
    assert (under & scene.permanent).sum() < 0.05 * under.sum()  # the blur of the shore
    assert np.median(fell[under]) == pytest.approx(6.0, abs=1.5)  # noise and speckle stay
    assert snowy.optical_after[1][under].mean() > 2 * scene.optical_after[1][under].mean()
    gusty = with_some(gustiness=0.9)
    water = scene.water_after
    assert gusty.sar_after[0][water].std() > scene.sar_after[0][water].std()
    smooth = with_some(smooth=0.5, smooth_drop=5.0)
    assert smooth.sar_after[0][~water].mean() < scene.sar_after[0][~water].mean() - 0.3
    for other in (snowy, gusty, smooth):
        assert np.array_equal(other.water_after, scene.water_after)
        assert np.array_equal(other.elevation, scene.elevation)


def test_border_noise_takes_the_place_of_nodata():
    drawn = draw_parameters(7)
    bordered = replace(drawn.sar, border=40)
    empty = simulate(7, 128, replace(drawn, sar=replace(bordered, look_alikes=LookAlikes())))
    noisy = LookAlikes(border_noise=True)
    filled = simulate(7, 128, replace(drawn, sar=replace(bordered, look_alikes=noisy)))
    border = np.isnan(empty.sar_after).any(axis=0)
    assert border.any() and not np.isnan(filled.sar_after).any()
    assert filled.sar_after[:, border].mean() < -34
