"""Simulated scenes beside real chips: backscatter, speckle and vegetation indices.

The simulator's ranges were set while its authors looked at these very chips, so this is no
independent test: it shows what was matched, and above all what was not.

Run: python benchmarks/simulator_realism.py --data my-data --record results/simulator_realism.json
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import rasterio
from numpy.typing import NDArray

from flora.colours import WATER_COLOUR
from flora.datasets.sen1floods11 import Sen1Floods11
from flora.datasets.sentinel import cloud_mask
from flora.experiments.provenance import write_record
from flora.figures.plots import BookFigure, figure
from flora.sensors import SENTINEL2_BANDS, BoolArray, FloatArray, normalised_difference
from flora.simulate.radar import speckle
from flora.simulate.scene import SIMULATOR_VERSION, simulate

SEEDS = range(9000, 9032)
SIZE = 256
DECIBEL_EDGES = np.arange(-45.0, 10.5, 0.5)
INDEX_EDGES = np.linspace(-1.0, 1.0, 51)
WINDOW = 24  # px; shorter windows hide more of the correlation at lag 2

CITATIONS = {
    "sen1floods11": Sen1Floods11.citation,
    "terramesh": (
        "Blumenstiel, B. et al. (2025). TerraMesh: a planetary mosaic of multimodal Earth "
        "observation data. CVPR Workshops. CC BY-SA 4.0."
    ),
    "sen12ms": (
        "Schmitt, M. et al. (2019). SEN12MS. ISPRS Annals IV-2/W7; as distributed with Ebel, P. et "
        "al. (2021). Multisensor data fusion for cloud removal in global and all-season "
        "Sentinel-2 imagery. IEEE TGRS 59(7)."
    ),
}

LIMITS = [
    "The simulator's ranges were set while looking at these chips: no independent test.",
    "Real water comes from three chips only: one labelled by hand, one coast with annual land "
    "cover, one mapped by its own NDWI.",
    "Simulated water is darker in VV and VH and lower in NDVI than that of any real chip here.",
    "Speckle is as wide down as across. On the chip Spain, whose pixels of equal degrees are "
    "narrower than tall, it is wider across.",
    "Not simulated at all: coast and waves, dry snow and ice, rain, ponds left on fields by rain, "
    "rice and reed, bridges and ships, seams of the swath.",
]


@dataclass(frozen=True)
class Chip:
    """One image, simulated or real.

    Attributes:
        source: What it counts to.
        sar: (2, H, W) VV and VH in dB, NaN without data.
        water: (H, W), or None where nothing says where water is.
        land: (H, W), or None likewise.
        optical: (13, H, W) Level-1C reflectance; None where the indices cannot be compared.
        clear: (H, W) neither cloud nor its shadow.
    """

    source: str
    sar: FloatArray
    water: BoolArray | None
    land: BoolArray | None
    optical: FloatArray | None
    clear: BoolArray | None


def simulated() -> Iterator[Chip]:
    for seed in SEEDS:
        scene = simulate(seed, SIZE)
        clear = ~(scene.cloud_after | scene.shadow_after)
        water = scene.water_after
        yield Chip("simulated", scene.sar_after, water, ~water, scene.optical_after, clear)


def real(data: Path) -> Iterator[Chip]:
    """The real chips under `data`, and why a layer of one is left out."""
    hand = data / "sen1floods11/v1.1/data/flood_events/HandLabeled"
    optical = read(hand / "S2Hand/Spain_7370579_S2Hand.tif") / 10_000.0
    label = read(hand / "LabelHand/Spain_7370579_LabelHand.tif")[0]
    sar = read(hand / "S1Hand/Spain_7370579_S1Hand.tif")
    yield Chip("Spain", sar, label == 1, label == 0, optical, ~cloud_mask(optical))

    # Annual land cover, not of the day of the image. These chips carry an offset of 1000: in B10,
    # where air absorbs nearly all light, they hold about 1010.
    mesh = data / "terramesh"
    for name, place in (("282D_485L_3_3", "coast"), ("433D_629L_3_1", "farmland")):
        cover = read(mesh / f"LULC/{name}.tif")[0]
        sar = read(mesh / f"S1RTC/{name}.tif")
        optical = (read(mesh / f"S2L1C/{name}.tif") - 1000.0) / 10_000.0
        # On the farmland chip the mapped river has the VV and NDVI of land on that day.
        water = cover == 1 if place == "coast" else None
        yield Chip(place, sar, water, cover != 1, optical, ~cloud_mask(optical))
    yield Chip("snow", read(mesh / "S1RTC/609U_541L_3_0.tif"), None, None, None, None)

    patch = data / "sen12ms/ROIs1970_fall"
    optical = read(patch / "s2_139/ROIs1970_fall_s2_139_p839.tif") / 10_000.0
    ndwi = normalised_difference(band(optical, "B3"), band(optical, "B8"))
    sar = read(patch / "s1_139/ROIs1970_fall_s1_139_p839.tif")
    # No label: water from NDWI, so its own indices would compare the index with itself.
    yield Chip("SEN12MS", sar, ndwi > 0.1, ndwi < -0.05, None, None)


def read(path: Path) -> FloatArray:
    with rasterio.open(path) as source:
        values: FloatArray = source.read().astype(np.float32)
    return values


def band(optical: FloatArray, name: str) -> FloatArray:
    layer: FloatArray = optical[SENTINEL2_BANDS.index(name)]
    return layer


def describe(chips: list[Chip]) -> dict[str, Any]:
    """Everything that the record says about the chips of one source."""
    found: dict[str, Any] = {"chips": len(chips)}
    for number, polarisation in enumerate(("VV", "VH")):
        water = pooled([(c.sar[number], c.water) for c in chips])
        land = pooled([(c.sar[number], c.land) for c in chips])
        found[polarisation] = {
            "water": histogram(water, DECIBEL_EDGES),
            "land": histogram(land, DECIBEL_EDGES),
            **separation(water, land),
            "speckle": speckle_statistics([c.sar[number] for c in chips], chips),
        }
    for index, (plus, minus) in {"NDVI": ("B8", "B4"), "NDWI": ("B3", "B8")}.items():
        layers = [
            (normalised_difference(band(c.optical, plus), band(c.optical, minus)), c)
            for c in chips
            if c.optical is not None
        ]
        found[index] = {
            name: histogram(
                pooled([(v, both(getattr(c, name), c.clear)) for v, c in layers]), INDEX_EDGES
            )
            for name in ("water", "land")
        }
    return found


def both(first: BoolArray | None, second: BoolArray | None) -> BoolArray | None:
    return None if first is None or second is None else first & second


def pooled(layers: list[tuple[FloatArray, BoolArray | None]]) -> FloatArray:
    """All measured values under the masks."""
    parts = [v[m & np.isfinite(v)] for v, m in layers if m is not None]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def histogram(values: FloatArray, edges: NDArray[np.float64]) -> dict[str, Any] | None:
    if values.size == 0:
        return None
    low, middle, high = np.percentile(values, [10, 50, 90])
    return {
        "counts": np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist(),
        "p10": rounded(low),
        "median": rounded(middle),
        "p90": rounded(high),
    }


def separation(water: FloatArray, land: FloatArray) -> dict[str, float | None]:
    """How far water lies below land: median gap in dB, and what the best threshold leaves wrong.

    The error is the mean of the shares of water and of land on the wrong side.
    """
    if water.size == 0 or land.size == 0:
        return {"gap_db": None, "best_threshold_db": None, "best_threshold_error": None}
    thresholds = np.arange(-45.0, 5.0, 0.25)
    missed = 1.0 - np.searchsorted(np.sort(water), thresholds) / water.size
    false = np.searchsorted(np.sort(land), thresholds) / land.size
    error = (missed + false) / 2.0
    best = int(error.argmin())
    return {
        "gap_db": rounded(np.median(land) - np.median(water)),
        "best_threshold_db": rounded(thresholds[best]),
        "best_threshold_error": rounded(error[best]),
    }


def speckle_statistics(images: list[FloatArray], chips: list[Chip]) -> dict[str, Any]:
    """Looks and autocorrelation of linear power in the most even fifth of all windows.

    The equivalent number of looks is mean**2 / variance (Lee and Pottier 2009). Choosing even
    windows raises it and taking out a window's mean lowers the correlation, in simulated and
    real images alike: `known_speckle` says by how much.
    """
    windows = []
    for image, chip in zip(images, chips, strict=True):
        mask = np.zeros(image.shape) if chip.water is None else chip.water.astype(float)
        power = 10.0 ** (image.astype(np.float64) / 10.0)
        for row in range(0, image.shape[0] - WINDOW + 1, WINDOW):
            for column in range(0, image.shape[1] - WINDOW + 1, WINDOW):
                cut = np.s_[row : row + WINDOW, column : column + WINDOW]
                if np.isfinite(power[cut]).all() and mask[cut].mean() in (0.0, 1.0):
                    windows.append(power[cut] / power[cut].mean())
    stack = np.array(windows)
    looks = 1.0 / stack.var(axis=(1, 2))
    even = stack[looks >= np.quantile(looks, 0.8)] - 1.0
    variance = (even**2).mean()
    found: dict[str, Any] = {
        "windows": len(even),
        "looks": rounded(np.quantile(looks, 0.9)),
    }
    for axis, name in ((1, "down"), (2, "across")):
        found[f"correlation_{name}"] = [
            rounded(
                (
                    np.take(even, range(lag, WINDOW), axis)
                    * np.take(even, range(WINDOW - lag), axis)
                ).mean()
                / variance
            )
            for lag in (1, 2)
        ]
    return found


def known_speckle() -> dict[str, Any]:
    """The estimators on speckle of 4.4 looks, width 1.2 px, over an even field."""
    rng = np.random.default_rng(0)
    power = speckle(rng, (SIZE * 4, SIZE * 4), 4.4, 1.2)
    field = (10.0 * np.log10(power)).astype(np.float32)
    chip = Chip("known", field[None], None, None, None, None)
    return {
        "looks": 4.4,
        "correlation": [rounded(np.exp(-(lag**2) / (2 * 1.2**2))) for lag in (1, 2)],
        "estimated": speckle_statistics([field], [chip]),
    }


def constant_image_psnr(optical: FloatArray) -> dict[str, float]:
    """PSNR in dB of the chip's mean colour (B4, B3, B2), by how reflectance becomes [0, 1]."""
    colour = np.stack([band(optical, name) for name in ("B4", "B3", "B2")]).astype(np.float64)
    low, high = np.percentile(colour, [2, 98], axis=(1, 2), keepdims=True)
    scaled = {
        "reflectance": colour.clip(0, 1),
        "reflectance / 0.3": (colour / 0.3).clip(0, 1),
        "2-98 % stretch per band": ((colour - low) / (high - low)).clip(0, 1),
    }
    return {
        name: rounded(-10.0 * np.log10((v - v.mean(axis=(1, 2), keepdims=True)).var()))
        for name, v in scaled.items()
    }


def between_scenes(chips: list[Chip]) -> dict[str, Any]:
    """10th, 50th and 90th percentile over the scenes of each scene's median."""
    found: dict[str, Any] = {}
    for number, polarisation in enumerate(("VV", "VH")):
        for name in ("water", "land"):
            medians = [
                np.median(values)
                for c in chips
                if (values := pooled([(c.sar[number], getattr(c, name))])).size > 500
            ]
            found[f"{polarisation} {name}"] = [
                rounded(p) for p in np.percentile(medians, [10, 50, 90])
            ]
    return found


def rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 3)


def draw(record: dict[str, Any]) -> BookFigure:
    """Histograms of a record: areas are simulated, lines real; water is blue and land orange."""
    made, axes = figure(2, 2, panel=(3.9, 2.5))
    styles = {"Spain": "-", "coast": "--", "SEN12MS": ":"}
    for ax, key in zip(axes.flat, ("VV", "VH", "NDVI", "NDWI"), strict=True):
        decibels = key in ("VV", "VH")
        first, second, last = record["decibel_edges" if decibels else "index_edges"]
        edges = np.arange(first, last + (second - first) / 2, second - first)
        for part, colour in (("water", WATER_COLOUR), ("land", "#d55e00")):
            for source, values in record["sources"].items():
                if values[key][part] is None or source not in ("simulated", *styles):
                    continue
                density = np.array(values[key][part]["counts"], dtype=float)
                density /= density.sum() * (second - first)
                simulated = source == "simulated"
                look: dict[str, Any] = (
                    {"fill": True, "alpha": 0.3} if simulated else {"ls": styles[source]}
                )
                ax.stairs(density, edges, color=colour, **look)
        ax.set_title(f"{key} (dB)" if decibels else key)
        ax.set_xlim((-38, 2) if decibels else (-0.8, 0.95))
    for source, line in styles.items():
        axes[0, 0].plot([], [], line, color="0.3", label=source)
    axes[0, 0].legend(frameon=False, loc="upper left")
    made.supylabel("density")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("FLORA_DATA"))
    parser.add_argument("--record", type=Path, help="JSON file that receives the result")
    parser.add_argument("--figure", type=Path, help="PNG that receives the histograms")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("no real chips: set FLORA_DATA or pass --data")
    scenes = list(simulated())
    chips = list(real(Path(arguments.data)))
    record: dict[str, Any] = {
        "what": "simulated scenes beside real Sentinel-1 and Sentinel-2 chips",
        "limits": LIMITS,
        "attribution": [
            "Contains modified Copernicus Sentinel data 2017 (SEN12MS), 2019 (Sen1Floods11, "
            "Spain), 2020 and 2021 (TerraMesh).",
            *CITATIONS.values(),
        ],
        "simulator_version": SIMULATOR_VERSION,
        "seeds": [SEEDS.start, SEEDS.stop],
        "size": SIZE,
        "decibel_edges": [float(e) for e in DECIBEL_EDGES[[0, 1, -1]]],
        "index_edges": [rounded(e) for e in INDEX_EDGES[[0, 1, -1]]],
        "window": WINDOW,
        "known_speckle": known_speckle(),
        "between_scenes": between_scenes(scenes),
        "constant_image_psnr": {
            c.source: constant_image_psnr(c.optical)
            for c in chips
            if c.source == "Spain" and c.optical is not None
        },
        "sources": {"simulated": describe(scenes)} | {c.source: describe([c]) for c in chips},
    }
    for name, source in record["sources"].items():
        print(name)
        for key in ("VV", "VH", "NDVI", "NDWI"):
            parts = {k: v for k, v in source[key].items() if k not in ("water", "land")}
            for part in ("water", "land"):
                if source[key][part]:
                    parts[part] = [source[key][part][p] for p in ("p10", "median", "p90")]
            print(" ", key, parts)
    print({k: record[k] for k in ("known_speckle", "between_scenes", "constant_image_psnr")})
    if arguments.record:
        write_record(arguments.record, record)
    if arguments.figure:
        draw(record).picture()[0].save(arguments.figure, optimize=True)


if __name__ == "__main__":
    main()
