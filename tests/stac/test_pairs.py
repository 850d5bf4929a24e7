from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from flora.cli.main import app
from flora.datasets.registry import open_dataset
from flora.errors import FloraError
from flora.stac.pairs import fetch_pair, find_pairs
from flora.stac.search import search
from tests.stac.test_stac import (
    GRID,
    OPTICAL,
    SCENE,
    SIDE,
    UTM,
    add_radar,
    optical_files,
    read,
    site,
)
from tests.support.fake_data import write_raster
from tests.support.stac_server import StacSite

pytest.importorskip("pystac")
__all__ = ["site"]  # a fixture

VEGETATION, SHADOW, CLOUD = 4, 3, 9


def add_image(site: StacSite, folder: Path, day: str, cloud: float = 4.0) -> None:
    """An image whose upper left quarter is cloud and whose right edge is in its shadow."""
    classes = np.full((1, SIDE, SIDE), VEGETATION, np.uint8)
    classes[:, : SIDE // 2, : SIDE // 2] = CLOUD
    classes[:, :, -4:] = SHADOW
    files = optical_files(folder) | {
        "SCL": write_raster(folder / "SCL.tif", classes, None, GRID, UTM)
    }
    said = {"s2:processing_baseline": "03.01", "eo:cloud_cover": cloud}
    site.add(f"s2_{day}", "sentinel-2-l2a", f"2019-{day}T11:00:00Z", files, said)


def box_of(site: StacSite) -> tuple[float, float, float, float]:
    return tuple(site.items["s1_13"]["bbox"])


def radar(site: StacSite) -> list:
    return search(box_of(site), "2019-09-01/2019-09-30", endpoint=site.base)


def test_the_nearest_day_is_taken_and_passes_without_an_image_are_left_out(site, tmp_path):
    add_radar(site, tmp_path, range(12, 26, 6))  # 12, 18, 24
    add_radar(site, tmp_path)
    for day in ("09-11", "09-14", "09-20"):
        add_image(site, tmp_path, day)
    found = find_pairs(radar(site), box_of(site))
    names = [(pair.sar[0].id, pair.optical[0].id, pair.days) for pair in found]
    assert names == [
        ("s1_12", "s2_09-11", -1),
        ("s1_13", "s2_09-14", 1),
        ("s1_18", "s2_09-20", 2),
    ]
    assert len(find_pairs(radar(site), box_of(site), pair_days=4)) == 4
    with pytest.raises(FloraError, match="none within 0 days") as refused:
        find_pairs(radar(site), box_of(site), pair_days=0)
    assert refused.value.argument == "pair_days"


def test_of_two_days_that_are_as_near_the_clearer_one_is_taken(site, tmp_path):
    add_radar(site, tmp_path)
    add_image(site, tmp_path, "09-12", cloud=15)
    add_image(site, tmp_path, "09-14", cloud=2)
    (pair,) = find_pairs(radar(site), box_of(site))
    assert pair.days == 1


def test_a_pair_is_a_chip_whose_clouds_and_shadows_are_hidden(site, tmp_path):
    add_radar(site, tmp_path)
    add_image(site, tmp_path, "09-14")
    (pair,) = find_pairs(radar(site), box_of(site))
    sar, optical = fetch_pair(pair, tmp_path / "pairs")
    assert sorted(path.name for path in (tmp_path / "pairs").iterdir()) == [
        "s1_13_optical.tif",
        "s1_13_sar.tif",
    ]
    values = read(optical)
    hidden = (values == 0).all(axis=0)
    expected = np.zeros((SIDE, SIDE), dtype=bool)
    expected[: SIDE // 2, : SIDE // 2] = expected[:, -4:] = True
    np.testing.assert_array_equal(hidden, expected)
    seen = SCENE["optical"][list(OPTICAL.values())]
    np.testing.assert_array_equal(values[:, ~hidden], seen[:, ~hidden])

    (chip,) = open_dataset("folder", tmp_path / "pairs", "all")
    np.testing.assert_array_equal(chip["optical_valid"].numpy(), ~expected)
    with rasterio.open(sar) as file:
        assert file.tags()["FLORA_BACKSCATTER"] == "gamma0, dB"
    with pytest.raises(FloraError, match="holds s1_13 already"):
        fetch_pair(pair, tmp_path / "pairs")


def test_an_image_without_classification_is_refused_and_leaves_nothing(site, tmp_path):
    add_radar(site, tmp_path)
    files, said = optical_files(tmp_path), {"s2:processing_baseline": "03.01"}
    site.add("s2", "sentinel-2-l2a", "2019-09-14T11:00:00Z", files, said)
    (pair,) = find_pairs(radar(site), box_of(site))
    with pytest.raises(FloraError, match="no asset for band SCL"):
        fetch_pair(pair, tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_from_a_catalogue_to_adapted_weights(site, tmp_path):
    add_radar(site, tmp_path, range(12, 14))
    add_image(site, tmp_path, "09-14")

    def run(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output.replace("\n", "")

    pairs, box = tmp_path / "pairs", ",".join(map(str, box_of(site)))
    where = ["--bbox", box, "--date", "2019-09-10/2019-09-20", "--endpoint", site.base]
    said = run("search", *where, "--fetch", pairs, "--pairs")
    assert "2 pairs" in said and f"flora adapt --dataset folder --root {pairs}" in said
    short = ["--teacher", "index", "--confidence", "0.5", "--steps", "1", "--batch", "1"]
    short += ["--crop", "32", "--quiet"]
    run("adapt", "--dataset", "folder", "--root", pairs, "--out", tmp_path / "run", *short)
    assert (tmp_path / "run" / "weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pairs"], "--pairs: goes with --fetch"),
        (["--pairs", "--before", "--fetch", "out"], "expected one of the two"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    words = ["search", "--bbox=0,0,1,1", "--date", "2019-09-13", *options]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and message in result.output.replace("\n", " ")
