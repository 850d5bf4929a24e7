"""Small files in the publishers' layouts, from a seed, for tests without the real data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

from flora.datasets.base import Sample, layers

PIXEL = 8.983152841195215e-05  # degrees, as in Sen1Floods11
CHIPS = {
    "train": ("Ghana_103272", "Sri-Lanka_12348", "USA_9"),
    "valid": ("Ghana_5079", "Mekong_11"),
    "test": ("Spain_7370579", "Ghana_313799"),
    "bolivia": ("Bolivia_103757",),
}


def north_up(west: float, north: float, pixel: float = PIXEL) -> Affine:
    """The transform of a grid whose top left corner is (west, north)."""
    return Affine(pixel, 0.0, west, 0.0, -pixel, north)


def write_raster(
    path: Path,
    values: NDArray[np.generic],
    nodata: float | None = None,
    transform: Affine | None = None,
    crs: str = "EPSG:4326",
) -> Path:
    """Write (bands, rows, columns) as a GeoTIFF, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=values.shape[0],
        height=values.shape[1],
        width=values.shape[2],
        dtype=values.dtype,
        crs=crs,
        transform=transform or north_up(-0.78, 38.12),
        nodata=nodata,
    ) as target:
        target.write(values)
    return path


def rewrite(path: Path, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Replace a raster by `change` of its values, on its own grid."""
    with rasterio.open(path) as source:
        values, nodata, transform = source.read(), source.nodata, source.transform
        crs = source.crs.to_string()
    path.unlink()
    write_raster(path, change(values), nodata, transform, crs)


def same(first: Sample, second: Sample) -> bool:
    """Whether two samples are equal, bit for bit."""
    return (
        first.keys() == second.keys()
        and first["meta"] == second["meta"]
        and all(torch.equal(*pair) for pair in zip(layers(first), layers(second), strict=True))
    )


def edge_offset(sample: Sample, key: str) -> int:
    """Columns by which a layer lies beside the label: where dark-equals-water agrees best."""
    water = (sample["water"] == 1).float()
    dark = sample[key][0] if key == "index" else sample[key].mean(0)
    dark = (dark < dark.mean()).float()
    scores = {
        shift: float((water == dark.roll(shift, -1)).float().mean()) for shift in range(-3, 4)
    }
    return max(scores, key=lambda shift: scores[shift])


def write_picture(path: Path, values: NDArray[np.generic]) -> Path:
    """Write (H, W) or (H, W, 3) uint8 as a PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def fake_scene(seed: int, size: int) -> dict[str, NDArray[np.generic]]:
    """One flooded scene: water (H, W) bool, VV and VH in dB, and 13 bands of reflectance x 10000.

    Water is dark in radar and near infrared; every pixel is valid and free of cloud.
    """
    random = np.random.default_rng(seed)
    height = gaussian_filter(random.normal(size=(size, size)), size / 8)
    water = height < np.quantile(height, 0.3)
    land_db = np.array([-8.0, -15.0])[:, None, None]
    water_db = np.array([-19.0, -27.0])[:, None, None]
    sar = np.where(water, water_db, land_db) + random.normal(0, 1.5, (2, size, size))
    land = np.array([1400, 1100, 1000, 900, 1200, 2000, 2400, 2500, 2600, 500, 10, 1800, 1100])
    wet = np.array([1400, 1100, 900, 700, 600, 500, 450, 400, 380, 200, 10, 200, 120])
    mean = np.where(water, wet[:, None, None], land[:, None, None])
    optical = mean * random.normal(1, 0.03, (13, size, size))
    return {
        "water": water,
        "sar": sar.astype(np.float32),
        "optical": np.maximum(optical, 1).astype(np.int16),
    }


def fake_sen1floods11(
    root: Path,
    size: int = 48,
    seed: int = 0,
    chips: Mapping[str, Sequence[str]] = CHIPS,
    mirror: bool = False,
    places: Mapping[str, tuple[int, int]] | None = None,
) -> Path:
    """Write hand-labelled chips and split lists under `root`/v1.1; returns `root`.

    The top left 4 x 4 px have no radar data, the next 4 columns no label. All chips lie on one
    ground, or where `places` puts them, in chips to the east and to the south.
    """
    base = root / "v1.1"
    hand = base / "data" / "flood_events" / "HandLabeled"
    sar_folder, optical_folder = ("S1GRDHand", "S2L1CHand") if mirror else ("S1Hand", "S2Hand")
    number = 0
    for split, ids in chips.items():
        lists = base / "splits" / "flood_handlabeled"
        lists.mkdir(parents=True, exist_ok=True)
        rows = [f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n" for chip in ids]
        (lists / f"flood_{split}_data.csv").write_text("".join(rows))
        for chip in ids:
            scene = fake_scene(seed + number, size)
            number += 1
            scene["sar"][:, :4, :4] = np.nan
            label = scene["water"].astype(np.int16)[None]
            label[:, :4, 4:8] = -1
            east, south = (places or {}).get(chip, (0, 0))
            where = north_up(-0.78 + east * size * PIXEL, 38.12 - south * size * PIXEL)
            write_raster(hand / sar_folder / f"{chip}_S1Hand.tif", scene["sar"], np.nan, where)
            write_raster(hand / optical_folder / f"{chip}_S2Hand.tif", scene["optical"], 0, where)
            write_raster(hand / "LabelHand" / f"{chip}_LabelHand.tif", label, None, where)
    return root


def fake_weak(root: Path, size: int = 48, seed: int = 0) -> Path:
    """Write weakly labelled chips of Sen1Floods11 under `root`/v1.1; returns `root`.

    The Otsu label lacks the left half's water, so that the two labels differ. The names and codes
    are those of the publisher's listing and of programs that read these files; no real one was
    at hand.
    """
    weak = root / "v1.1" / "data" / "flood_events" / "WeaklyLabeled"
    for number, chip in enumerate(("Bolivia_1", "Ghana_2", "Spain_3", "Spain_40")):
        scene = fake_scene(seed + number, size)
        index = scene["water"].astype(np.int16)[None]
        index[:, :4, 4:8] = -1
        otsu = scene["water"].astype(np.int16)[None]
        otsu[:, :, : size // 2] = 0
        write_raster(weak / "S1Weak" / f"{chip}_S1Weak.tif", scene["sar"], np.nan)
        write_raster(weak / "S2IndexLabelWeak" / f"{chip}_S2IndexLabelWeak.tif", index)
        write_raster(weak / "S1OtsuLabelWeak" / f"{chip}_S1OtsuLabelWeak.tif", otsu)
    return root


def fake_folder(root: Path, size: int = 48, seed: int = 0) -> Path:
    """Write chips of one's own under `root`/train, each with other layers; returns `root`.

    "Po_1" has all: 13 bands, 4 bands before, and a label; "Po_2" VV and VH apart, with a label
    without an end to its name; "radar_only" nothing but radar.
    """
    folder = root / "train"
    one, two, three = (fake_scene(seed + number, size) for number in range(3))
    for scene in (one, two, three):
        scene["sar"][:, :4, :4] = np.nan
    write_raster(folder / "Po_1_sar.tif", one["sar"], np.nan)
    write_raster(folder / "Po_1_optical.tif", one["optical"], 0)
    before = two["optical"][[3, 2, 1, 7]].astype(np.uint16)
    before[:, -3:] = 0
    write_raster(folder / "Po_1_before.tif", before, 0)
    write_raster(folder / "Po_1_label.tif", one["water"].astype(np.int16)[None])
    for band, name in enumerate(("vv", "vh")):
        filled = np.nan_to_num(two["sar"][band : band + 1], nan=0.0)
        write_raster(folder / "apart" / f"Po_2_{name}.tif", filled, 0.0)
    label = two["water"].astype(np.uint8)[None]
    label[:, :, -2:] = 255
    write_raster(folder / "apart" / "Po_2.tif", label, 255)
    write_raster(folder / "radar_only_S1Hand.tif", three["sar"], np.nan)
    return root


def fake_sen12ms(root: Path, size: int = 48, seed: int = 0) -> Path:
    """Write SEN12MS patches under `root`, land cover included; returns `root`.

    Scene 15 of spring is one of the publisher's hold-out scenes, scene 139 of fall falls to
    "valid", scene 1 of winter to "train". Water is class 17 of IGBP and 3 of the others; land is 9
    (savannas), 11, 9 and 30; the top row of IGBP is 11, permanent wetland.
    """
    patches = {
        ("ROIs1158_spring", 15): (1, 2),
        ("ROIs1970_fall", 139): (839,),
        ("ROIs2017_winter", 1): (2, 10, 100),
    }
    for (season, scene_number), numbers in patches.items():
        for number in numbers:
            scene = fake_scene(seed + number, size)
            water = scene["water"].astype(bool)
            cover = np.stack(
                [np.where(water, wet, land) for wet, land in ((17, 9), (3, 11), (3, 9), (3, 30))]
            ).astype(np.uint16)
            cover[0, 0] = 11
            optical = scene["optical"].astype(np.uint16)
            for layer, values in (("s1", scene["sar"]), ("s2", optical), ("lc", cover)):
                stem = f"{season}_{layer}_{scene_number}_p{number}"
                folder = root / season / f"{layer}_{scene_number}"
                write_raster(
                    folder / f"{stem}.tif",
                    values,
                    transform=north_up(500_000, 4e6, 10),
                    crs="EPSG:32650",
                )
    return root


def fake_deepflood(root: Path, size: int = 48, seed: int = 0) -> Path:
    """Write tiles of DeepFlood under `root`/TILES as notes describe them; returns `root`.

    Not checked against a real file: none could be obtained. Water is class 2 on the right and class
    0 (inundated vegetation, bright in radar) on the left; land is class 1, with class 3 in the
    bottom row. The top row of the aerial image is black.
    """
    names = (
        "Elizabeth_Florence_14_09_18_01_tile_7",
        "Elizabeth_Florence_14_09_18_01_tile_10",
        "Elizabeth_Florence_14_09_18_02_tile_7",
        "Grifton_Mattew_15_10_16_02_tile_957",
        "Kinston_Mattew_15_10_16_01_tile_1",
        "Washington_Florence_14_09_18_01_tile_1072",
    )
    for number, name in enumerate(names):
        scene = fake_scene(seed + number, size)
        water = scene["water"].astype(bool)
        mask = np.where(water, 2, 1)
        mask[:, : size // 2][water[:, : size // 2]] = 0
        mask[-1] = 3
        sar = scene["sar"].copy()
        sar[:, mask == 0] += 14
        aerial = np.where(
            water, np.array([60, 80, 70])[:, None, None], np.array([90, 120, 60])[:, None, None]
        )
        aerial[:, 0] = 0
        layers = {
            "SAR VV": sar[:1],
            "SAR VH": sar[1:],
            "Optical": aerial.astype(np.uint8),
            "Mask": mask[None].astype(np.uint8),
        }
        for layer, values in layers.items():
            write_raster(root / "TILES" / layer / f"{name}.tif", values)
    return root


def fake_ombria(root: Path, size: int = 48, seed: int = 0) -> Path:
    """Write official OMBRIA folders under `root`: 8 training and 2 test chips; returns `root`.

    Two training chips, 40 and 400, belong to the part held out for choosing. The two top rows of
    every chip are outside its footprint: black in Sentinel-2, white in Sentinel-1.
    """
    numbers = {"train": (1, 2, 5, 40, 120, 300, 400, 500), "test": (13, 613)}
    for part, chips in numbers.items():
        for number in chips:
            pictures = _ombria_pictures(seed + number, size)
            for sensor in ("S1", "S2"):
                for kind in ("before", "after", "mask"):
                    name = f"{sensor}_{kind}_{number:04d}.png"
                    folder = root / f"Ombria{sensor}" / part / kind.upper()
                    write_picture(folder / name, pictures[sensor, kind])
    return root


def fake_ombria_2021(root: Path, size: int = 48, seed: int = 0) -> Path:
    """Write OMBRIA's 2021 layout under `root`/2021: two places; returns `root`."""
    names = {"before": "imbefore", "after": "imafter", "mask": "gt"}
    for place, chips in {"ALBANIA": (1, 2, 10), "TIMOR": (3,)}.items():
        for number in chips:
            pictures = _ombria_pictures(seed + number, size)
            for sensor in ("1", "2"):
                for kind, name in names.items():
                    folder = root / "2021" / place / f"Sentinel{sensor}" / kind.upper()
                    write_picture(folder / f"{name}_{number}.png", pictures[f"S{sensor}", kind])
    return root


def _ombria_pictures(seed: int, size: int) -> dict[tuple[str, str], NDArray[np.generic]]:
    """By sensor and kind; the flood is dark in the after-images only."""
    random = np.random.default_rng(seed)
    scene = fake_scene(seed, size)
    dry_sar = np.clip(random.normal(160, 15, (size, size)), 1, 254)
    dry_optical = np.clip(random.normal((60, 90, 40), 4, (size, size, 3)), 1, 254)
    flood = scene["water"].astype(bool)
    flood[:2] = False
    pictures: dict[tuple[str, str], NDArray[np.generic]] = {
        ("S1", "before"): dry_sar,
        ("S1", "after"): np.where(flood, dry_sar - 100, dry_sar),
        ("S2", "before"): dry_optical,
        ("S2", "after"): np.where(flood[..., None], dry_optical * (0.1, 0.2, 1.1), dry_optical),
    }
    for (sensor, _), values in pictures.items():
        values[:2] = 255 if sensor == "S1" else 0
    masks = {(sensor, "mask"): flood * 255 for sensor in ("S1", "S2")}
    return {key: values.astype(np.uint8) for key, values in (pictures | masks).items()}
