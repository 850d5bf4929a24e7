"""Images in swath geometry on a map: located by ground control points, read through GDAL.

Written as GDAL virtual datasets (https://gdal.org/en/stable/drivers/raster/vrt.html), so that
GDAL calibrates and resamples what is read and nothing else. rasterio's `WarpedVRT` fits a plane or
polynomial to ground control points; the grid of points of a Sentinel-1 product bends more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import transform

from flora.errors import NAME_ALONE, FloraError, Given
from flora.grid import GDAL_ERRORS, Grid, unwrapped

TOLERANCE = 0.125  # px: how far the piecewise linear transformer may be off, GDAL's own default
# px: GDAL loads the whole part of the source below a block, which in a coarse reading is large.
BLOCK, COARSE_BLOCK = 512, 64

LONGEST = 1e7  # m: a quarter of the Earth; the longest product is a tenth of it

NOISE_FLOOR = 0.1  # least share of the measured power that is left when noise was subtracted

BILINEAR, NEAREST = ' resampling="bilinear"', ' resampling="nearest"'
ALGORITHMS = {Resampling.nearest: "NearestNeighbour", Resampling.bilinear: "Bilinear"}


class GroundControl(NamedTuple):
    """Where some pixels lie.

    Attributes:
        points: Rows and columns with their coordinates.
        crs: Of the coordinates.
    """

    points: Sequence[GroundControlPoint]
    crs: CRS

    def coordinates(self, crs: CRS, source: Given) -> tuple[NDArray[Any], NDArray[Any]]:
        """The points' x and y in `crs`; longitudes exceed 180 across the antimeridian.

        Raises:
            FloraError: If they cannot be converted, or `crs` tears them apart.
        """
        x, y = [point.x for point in self.points], [point.y for point in self.points]
        try:
            there = transform(self.crs, crs, x, y)
        except GDAL_ERRORS as error:
            raise FloraError(
                f"its ground control points in {self.crs} cannot be converted to {crs} ({error})",
                argument=source,
                remedy="choose another {grid}",
                grid=NAME_ALONE,
            ) from error
        first, second = np.asarray(there[0]), np.asarray(there[1])
        if crs.is_geographic:
            return unwrapped(first), second
        if np.ptp(first) * crs.linear_units_factor[1] > LONGEST:
            raise FloraError(
                f"it lies across 180 degrees of longitude, where {crs} is torn apart",
                argument=source,
                remedy="choose a {grid} that is whole there",
                grid="utm",
            )
        return first, second


class CoarseRaster(NamedTuple):
    """A quantity that varies slowly over a measurement.

    Attributes:
        name: What GDAL opens: one value for each cell.
        shape: (rows, columns) of cells, which may reach beyond the measurement.
        cell: (rows, columns) of the measurement's pixels in a cell.
    """

    name: str
    shape: tuple[int, int]
    cell: tuple[float, float]


def power_vrt(
    size: tuple[int, int],
    measurement: str,
    gain: CoarseRaster,
    noise: CoarseRaster | None,
    inside: CoarseRaster | None = None,
) -> str:
    """A virtual dataset of calibrated power: (digital number squared - noise) times a gain.

    What is left is at least `NOISE_FLOOR` of what was measured: speckle takes many pixels of calm
    water below the noise, and a power has to be above 0. Nodata stays 0.

    Args:
        size: (rows, columns) of the measurement.
        measurement: What GDAL opens as the digital numbers, 0 where nothing was measured.
        gain: What power is multiplied by.
        noise: What is subtracted before; None for nothing.
        inside: 1, or 0 in cells that are to be nodata; None keeps all.
    """
    rows, columns = size

    def source(name: str, height: float = rows, width: float = columns, options: str = "") -> str:
        return (
            f"<SimpleSource{options}><SourceFilename>{escape(name)}</SourceFilename>"
            f'<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="{width!r}" '
            f'ySize="{height!r}"/><DstRect xOff="0" yOff="0" xSize="{columns}" ySize="{rows}"/>'
            "</SimpleSource>"
        )

    def spread(table: CoarseRaster, options: str = BILINEAR) -> str:
        height, width = (
            min(side / step, cells)
            for side, step, cells in zip(size, table.cell, table.shape, strict=True)
        )
        return source(table.name, height, width, options)

    def derived(function: str, sources: str, options: str = "") -> str:
        return (
            f'<VRTDataset rasterXSize="{columns}" rasterYSize="{rows}">'
            '<VRTRasterBand dataType="Float32" band="1" subClass="VRTDerivedRasterBand">'
            f"{options}<PixelFunctionType>{function}</PixelFunctionType>"
            f"<SourceTransferType>Float32</SourceTransferType>{sources}"
            "</VRTRasterBand></VRTDataset>"
        )

    numbers, nodata = source(measurement), "<NoDataValue>0</NoDataValue>"
    factors = spread(gain) + ("" if inside is None else spread(inside, NEAREST))
    if noise is None:
        return derived("mul", numbers * 2 + factors, nodata)
    left = derived("diff", source(derived("mul", numbers * 2)) + spread(noise))
    floor = derived(
        "mul", numbers * 2, f'<PixelFunctionArguments k="{NOISE_FLOOR!r}"/>'
    )  # 0 in nodata, where less than the noise is left
    signal = derived("max", source(left) + source(floor))
    return derived("mul", source(signal) + factors, nodata)


def geocoded_vrt(
    source: str,
    bands: Sequence[int],
    control: GroundControl,
    grid: Grid,
    nodata: float,
    resampling: Resampling,
    given: Given,
    block: int = BLOCK,
) -> str:
    """A virtual dataset of a raster in swath geometry, resampled to a map grid.

    Positions come from thin plate splines through the ground control points, which they meet
    exactly, in the grid's own coordinates: those have no seam within the product, as longitudes
    have at 180 degrees. Nothing is known between them: heights of the terrain play no part.

    Args:
        source: What GDAL opens as the raster.
        bands: Numbers (from 1) of the bands wanted.
        control: Where the raster's pixels lie.
        grid: The map grid; it has a CRS.
        nodata: Value of pixels that were not measured, in the source and the result.
        resampling: Nearest or bilinear.
        given: The argument that named the raster.
        block: Side of the blocks that are computed at once.

    Raises:
        FloraError: If the points have no place on the grid.
    """
    crs = grid.crs or control.crs
    wkt, places = escape(crs.to_wkt()), zip(*control.coordinates(crs, given), strict=True)
    points = "".join(
        f'<GCP Id="" Pixel="{point.col!r}" Line="{point.row!r}" X="{float(x)!r}" Y="{float(y)!r}"/>'
        for point, (x, y) in zip(control.points, places, strict=True)
    )
    forward, inverse = (
        ",".join(repr(float(value)) for value in transform.to_gdal())
        for transform in (grid.transform, ~grid.transform)
    )
    layers = "".join(
        f'<VRTRasterBand dataType="Float32" band="{number}" subClass="VRTWarpedRasterBand">'
        f"<NoDataValue>{nodata!r}</NoDataValue></VRTRasterBand>"
        for number in range(1, len(bands) + 1)
    )
    mappings = "".join(
        f'<BandMapping src="{band}" dst="{number}">'
        f"<SrcNoDataReal>{nodata!r}</SrcNoDataReal><SrcNoDataImag>0</SrcNoDataImag>"
        f"<DstNoDataReal>{nodata!r}</DstNoDataReal><DstNoDataImag>0</DstNoDataImag></BandMapping>"
        for number, band in enumerate(bands, start=1)
    )
    return (
        f'<VRTDataset rasterXSize="{grid.shape[1]}" rasterYSize="{grid.shape[0]}" '
        f'subClass="VRTWarpedDataset"><SRS>{wkt}</SRS><GeoTransform>{forward}</GeoTransform>'
        f"{layers}<BlockXSize>{block}</BlockXSize><BlockYSize>{block}</BlockYSize>"
        f"<GDALWarpOptions><ResampleAlg>{ALGORITHMS[resampling]}</ResampleAlg>"
        "<WorkingDataType>Float32</WorkingDataType>"
        '<Option name="INIT_DEST">NO_DATA</Option>'
        f"<SourceDataset>{escape(source)}</SourceDataset>"
        f"<Transformer><ApproxTransformer><MaxError>{TOLERANCE}</MaxError><BaseTransformer>"
        "<GenImgProjTransformer><SrcTPSTransformer><TPSTransformer><Reversed>0</Reversed>"
        f"<GCPList>{points}</GCPList></TPSTransformer></SrcTPSTransformer>"
        f"<DstGeoTransform>{forward}</DstGeoTransform>"
        f"<DstInvGeoTransform>{inverse}</DstInvGeoTransform>"
        "</GenImgProjTransformer></BaseTransformer></ApproxTransformer></Transformer>"
        f"<BandList>{mappings}</BandList></GDALWarpOptions></VRTDataset>"
    )


def mosaic_vrt(parts: Sequence[str], grid: Grid, nodata: float) -> str:
    """A virtual dataset of one band: the last part that holds something, pixel by pixel.

    Args:
        parts: What GDAL opens as each, all on the grid.
        grid: The map grid.
        nodata: Value of pixels that were not measured, in the parts and the result.
    """
    rows, columns = grid.shape
    box = f'xOff="0" yOff="0" xSize="{columns}" ySize="{rows}"'
    sources = "".join(
        f"<ComplexSource><SourceFilename>{escape(part)}</SourceFilename><SourceBand>1</SourceBand>"
        f"<SrcRect {box}/><DstRect {box}/><NODATA>{nodata!r}</NODATA></ComplexSource>"
        for part in parts
    )
    wkt = escape(grid.crs.to_wkt()) if grid.crs is not None else ""
    forward = ",".join(repr(float(value)) for value in grid.transform.to_gdal())
    return (
        f'<VRTDataset rasterXSize="{columns}" rasterYSize="{rows}"><SRS>{wkt}</SRS>'
        f'<GeoTransform>{forward}</GeoTransform><VRTRasterBand dataType="Float32" band="1">'
        f"<NoDataValue>{nodata!r}</NoDataValue>{sources}</VRTRasterBand></VRTDataset>"
    )
