"""Small radar scenes in the layouts people have them in, from a seed and a known ground truth."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.warp import transform

UTM = CRS.from_epsg(32630)
GRID = Affine(10.0, 0.0, 600000.0, 0.0, -10.0, 4400000.0)
PRODUCT = "S1A_IW_GRDH_1SDV_20190917T060141_20190917T060206_029045_034BE1_2B2F"
BORDER = 9  # columns of a ground range product that hold 0
SECOND_SWATH = 140  # first pixel of its second sub-swath
BURST = 100  # lines


def truth(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """sigma0 (2, ...) in dB, VV and VH, at coordinates in `UTM`: waves of 800 m, 3 dB high."""
    waves = 3 * np.sin(x * 2 * np.pi / 800) * np.cos(y * 2 * np.pi / 800)
    return np.stack([-9 + waves, -16 + waves])


def map_truth(grid: Affine, shape: tuple[int, int], crs: CRS = UTM) -> NDArray[np.float64]:
    """`truth` at the centres of a map grid's pixels: (2, rows, columns)."""
    row, column = np.mgrid[: shape[0], : shape[1]] + 0.5
    x = grid.a * column + grid.b * row + grid.c
    y = grid.d * column + grid.e * row + grid.f
    if crs != UTM:
        there = transform(crs, UTM, x.ravel(), y.ravel())
        x, y = (np.reshape(values, shape) for values in there)
    return truth(x, y)


def write_scene(path: Path, values: Any, *, names: Sequence[str] = (), **profile: Any) -> Path:
    """Write (bands, rows, columns) as a GeoTIFF in `UTM`, unless the profile says otherwise."""
    values = np.asarray(values)
    bands, height, width = values.shape
    profile = {"crs": UTM, "transform": GRID, "dtype": values.dtype, **profile}
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=bands, height=height, width=width, **profile
        ) as file:
            file.write(values)
            if names:
                file.descriptions = tuple(names)
    return path


def swath_position(line: Any, pixel: Any) -> tuple[Any, Any]:
    """Where (line, pixel) of the fake swath lies in `UTM`: turned by 11 degrees, and bent."""
    x = 600000 + 9.8 * pixel - 1.9 * line + 25 * np.sin(pixel / 60)
    y = 4400000 - 1.9 * pixel - 9.8 * line + 20 * np.cos(line / 50)
    return x, y


def sigma_nought(line: Any, pixel: Any) -> Any:
    """The fake calibration constant A: falls by a third over the swath, hardly along it."""
    return 620 - 0.8 * np.asarray(pixel) + 0.05 * np.asarray(line)


def noise(line: Any, pixel: Any) -> Any:
    """The fake thermal noise in squared digital numbers: two sub-swaths, and an antenna's sweep.

    At -21 to -25 dB it is a fifth and more of what VH measures.
    """
    return noise_in_range(pixel) * sweep(line)


def noise_in_range(pixel: Any) -> Any:
    """Falls over each sub-swath, and jumps where the second begins."""
    pixel = np.asarray(pixel)
    return np.where(pixel < SECOND_SWATH, 1500 - 2.5 * pixel, 2000 - 4.0 * pixel)


def sweep(line: Any) -> Any:
    """1 in the middle of each of two bursts, 1.3 at their ends."""
    return 1 + 0.3 * np.abs((np.asarray(line) % BURST) / BURST * 2 - 1)


def fake_safe(
    root: Path, height: int = 190, width: int = 260, product: str = PRODUCT, start: int = 0
) -> Path:
    """Write a ground range product of `truth` in ESA's layout; returns its folder.

    Its first line is line `start` of the pass.
    """
    safe = root / f"{product}.SAFE"
    line, pixel = np.mgrid[:height, :width]
    sigma0 = 10 ** (truth(*swath_position(start + line + 0.5, pixel + 0.5)) / 10)
    power = sigma0 * sigma_nought(line, pixel) ** 2 + noise(line, pixel)
    numbers = np.rint(np.sqrt(power)).astype(np.uint16)
    numbers[:, :, :BORDER] = 0
    points = _control_points(height, width, start)
    for number, (band, values) in enumerate(zip(("vv", "vh"), numbers, strict=True), start=1):
        stem = f"s1a-iw-grd-{band}-20190917t060141-20190917t060206-029045-034be1-{number:03d}"
        write_scene(
            safe / "measurement" / f"{stem}.tiff",
            values[None],
            crs=CRS.from_epsg(4326),
            transform=None,
            gcps=points,
        )
        folder = safe / "annotation" / "calibration"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"calibration-{stem}.xml").write_text(_calibration(height, width))
        (folder / f"noise-{stem}.xml").write_text(noise_annotation(height, width))
        (safe / "annotation" / f"{stem}.xml").write_text(
            "<product><adsHeader><missionId>S1A</missionId><mode>IW</mode><absoluteOrbitNumber>29045"
            "</absoluteOrbitNumber><missionDataTakeId>216033</missionDataTakeId></adsHeader>"
            "<imageAnnotation><processingInformation><thermalNoiseCorrectionPerformed>"
            "false</thermalNoiseCorrectionPerformed></processingInformation></imageAnnotation>"
            "</product>"
        )
    (safe / "manifest.safe").write_text("<xfdu:XFDU/>")
    return safe


def zipped(safe: Path) -> Path:
    """The same as a .zip that holds the folder."""
    archive = shutil.make_archive(str(safe.with_suffix("")), "zip", safe.parent, safe.name)
    return Path(archive)


def _control_points(height: int, width: int, start: int) -> list[GroundControlPoint]:
    points = []
    for line in np.linspace(0, height, 8):
        for pixel in np.linspace(0, width, 11):
            x, y = swath_position(start + line, pixel)
            longitude, latitude = transform(UTM, "EPSG:4326", [x], [y])
            points.append(GroundControlPoint(line, pixel, longitude[0], latitude[0], 30.0))
    return points


def _calibration(height: int, width: int) -> str:
    """Vectors at lines and pixels of their own, as in the Product Specification."""
    pixels = [*range(0, width - 1, 40), width - 1]
    vectors = []
    for line in (-30, 60, height + 20):
        row = {"pixel": pixels, "sigmaNought": sigma_nought(line, pixels)}
        row["betaNought"] = row["gamma"] = row["dn"] = [237.0] * len(pixels)
        lists = "".join(
            f'<{name} count="{len(pixels)}">{" ".join(map(str, values))}</{name}>'
            for name, values in row.items()
        )
        time = f"<azimuthTime>2019-09-17T06:01:{41 + line / 100:09.6f}</azimuthTime>"
        vectors.append(f"<calibrationVector>{time}<line>{line}</line>{lists}</calibrationVector>")
    return (
        '<?xml version="1.0" encoding="UTF-8"?><calibration><adsHeader><productType>GRD'
        "</productType></adsHeader><calibrationInformation><absoluteCalibrationConstant>1.0"
        "</absoluteCalibrationConstant></calibrationInformation>"
        f'<calibrationVectorList count="{len(vectors)}">{"".join(vectors)}'
        "</calibrationVectorList></calibration>"
    )


def noise_annotation(height: int, width: int, old: bool = False) -> str:
    """`noise` as IPF 2.90 and later write it; or, old, its part in range as earlier ones do."""
    name = "noise" if old else "noiseRange"
    pixels = sorted({*range(0, width, 40), SECOND_SWATH - 1, SECOND_SWATH, width - 1})
    values = " ".join(f"{value:.6e}" for value in noise_in_range(pixels))
    vectors = "".join(
        f"<{name}Vector><azimuthTime>2019-09-17T06:01:41.000000</azimuthTime><line>{line}</line>"
        f'<pixel count="{len(pixels)}">{" ".join(map(str, pixels))}</pixel>'
        f'<{name}Lut count="{len(pixels)}">{values}</{name}Lut></{name}Vector>'
        for line in (-30, height // 2, height + 20)
    )
    text = f'<{name}VectorList count="3">{vectors}</{name}VectorList>'
    if not old:
        lines = sorted({*range(0, height, 10), height - 1})
        factors = " ".join(f"{factor:.6e}" for factor in sweep(lines))
        blocks = "".join(
            f"<noiseAzimuthVector><swath>{swath}</swath><firstAzimuthLine>0</firstAzimuthLine>"
            f"<firstRangeSample>{first}</firstRangeSample>"
            f"<lastAzimuthLine>{height - 1}</lastAzimuthLine>"
            f"<lastRangeSample>{last}</lastRangeSample>"
            f'<line count="{len(lines)}">{" ".join(map(str, lines))}</line>'
            f'<noiseAzimuthLut count="{len(lines)}">{factors}</noiseAzimuthLut>'
            "</noiseAzimuthVector>"
            for swath, first, last in (
                ("IW1", 0, SECOND_SWATH - 1),
                ("IW2", SECOND_SWATH, width - 1),
            )
        )
        text += f'<noiseAzimuthVectorList count="2">{blocks}</noiseAzimuthVectorList>'
    return f'<?xml version="1.0" encoding="UTF-8"?><noise><adsHeader/>{text}</noise>'
