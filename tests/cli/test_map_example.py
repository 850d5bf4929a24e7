from __future__ import annotations

import json
import socket

import pytest
import rasterio
from typer.testing import CliRunner

from flora.cli.main import app
from flora.scenes.example import example_scene

SAID = pytest.mark.filterwarnings("always::flora.errors.FloraWarning")


@SAID
def test_example_is_mapped_without_a_network(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the example asks a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["map", "--example", "--out", str(out), "--quiet"])
    assert result.exit_code == 0, result.output
    assert "Warning" not in result.output + result.stderr
    assert "sigma0, from gamma0 at 38.8 degrees" in result.output
    stem = example_scene().stem
    with rasterio.open(out / f"{stem}_water_mask.tif") as file:
        water = file.read(1)
    # The bay lies in the north-east and the south-east, the forest in the west.
    assert water[40:80, 120:150].mean() > 0.9 and water[60:160, :60].mean() < 0.05
    page = (out / "map.html").read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in page and "Copernicus Sentinel data 2021" in page
    again = CliRunner().invoke(app, ["map", "--example", "--out", str(out), "--quiet"])
    assert again.exit_code == 1 and f"--out {out / 'map.html'}: exists already" in again.stderr


def test_example_goes_without_a_scene_of_ones_own(tmp_path):
    arguments = ["map", "S1.tif", "--example", "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "SAR S1.tif: --example brings a scene of its own" in result.stderr
    assert not (tmp_path / "o").exists()


def test_example_is_small_and_says_whose_it_is():
    licence = example_scene().with_name("LICENCE.md").read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in licence and "Contains modified Copernicus Sentinel data" in licence
    assert sum(path.stat().st_size for path in example_scene().parent.iterdir()) < 400_000


@SAID
def test_item_of_the_example_names_weights_and_licence(tmp_path):
    out = tmp_path / "out"
    command = ["map", "--example", "--out", str(out), "--quiet", "--item"]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    item = json.loads((out / f"{example_scene().stem}_item.json").read_text())
    assert {"water_mask", "rgb", "page"} <= item["assets"].keys()
    assert item["assets"]["page"]["href"] == "map.html"
    properties = item["properties"]
    assert properties["flora:weights"].endswith(".safetensors")
    assert "CC BY-SA 4.0" in properties["attribution"]
