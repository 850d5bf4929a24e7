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

from flora.errors import FloraError
from flora.scene_grid import GDAL_ERRORS, Grid

TOLERANCE = 0.125  # px: how far the piecewise linear transformer may be off, GDAL's own default
# px: GDAL loads the whole part of the source below a block, which in a coarse reading is large.
BLOCK, COARSE_BLOCK = 512, 64

BILINEAR = ' resampling="bilinear"'
ALGORITHMS = {Resampling.nearest: "NearestNeighbour", Resampling.bilinear: "Bilinear"}


class GroundControl(NamedTuple):
    """Where some pixels lie.

    Attributes:
        points: Rows and columns with their coordinates.
        crs: Of the coordinates.
    """

    points: Sequence[GroundControlPoint]
    crs: CRS

    def coordinates(self, crs: CRS, argument: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """The points' x and y in `crs`.

        Raises:
            FloraError: If they cannot be converted.
        """
        x, y = [point.x for point in self.points], [point.y for point in self.points]
        try:
            there = transform(self.crs, crs, x, y)
        except GDAL_ERRORS as error:
            raise FloraError(
                f"{argument}: its ground control points in {self.crs} cannot be converted to {crs}"
                f" ({error}); choose another grid"
            ) from error
        return np.asarray(there[0]), np.asarray(there[1])


def power_vrt(
    size: tuple[int, int], measurement: str, gain: str, gain_shape: tuple[int, int], step: int
) -> str:
    """A virtual dataset of calibrated power: digital number squared times a gain.

    Args:
        size: (rows, columns) of the measurement.
        measurement: What GDAL opens as the digital numbers, 0 where nothing was measured.
        gain: What GDAL opens as the gain, one value for each cell of `step` pixels, interpolated
            bilinearly between the cells' centres.
        gain_shape: (rows, columns) of the gain, which may reach beyond the measurement.
        step: Side of a cell in pixels.
    """
    rows, columns = size

    def source(name: str, height: float, width: float, options: str = "") -> str:
        return (
            f"<SimpleSource{options}><SourceFilename>{escape(name)}</SourceFilename>"
            f'<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="{width!r}" '
            f'ySize="{height!r}"/><DstRect xOff="0" yOff="0" xSize="{columns}" ySize="{rows}"/>'
            "</SimpleSource>"
        )

    numbers = source(measurement, rows, columns)
    reach = min(rows / step, gain_shape[0]), min(columns / step, gain_shape[1])
    return (
        f'<VRTDataset rasterXSize="{columns}" rasterYSize="{rows}">'
        '<VRTRasterBand dataType="Float32" band="1" subClass="VRTDerivedRasterBand">'
        "<NoDataValue>0</NoDataValue><PixelFunctionType>mul</PixelFunctionType>"
        "<SourceTransferType>Float32</SourceTransferType>"
        f"{numbers}{numbers}{source(gain, *reach, BILINEAR)}"
        "</VRTRasterBand></VRTDataset>"
    )


def geocoded_vrt(
    source: str,
    bands: Sequence[int],
    control: GroundControl,
    grid: Grid,
    nodata: float,
    resampling: Resampling,
    block: int = BLOCK,
) -> str:
    """A virtual dataset of a raster in swath geometry, resampled to a map grid.

    Positions come from thin plate splines through the ground control points, which they meet
    exactly. Nothing is known between them: heights of the terrain play no part.

    Args:
        source: What GDAL opens as the raster.
        bands: Numbers (from 1) of the bands wanted.
        control: Where the raster's pixels lie.
        grid: The map grid; it has a CRS.
        nodata: Value of pixels that were not measured, in the source and the result.
        resampling: Nearest or bilinear.
        block: Side of the blocks that are computed at once.
    """
    wkt = escape(grid.crs.to_wkt()) if grid.crs is not None else ""
    points = "".join(
        f'<GCP Id="" Pixel="{point.col!r}" Line="{point.row!r}" X="{point.x!r}" Y="{point.y!r}"/>'
        for point in control.points
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
        "<ReprojectTransformer><ReprojectionTransformer>"
        f"<SourceSRS>{escape(control.crs.to_wkt())}</SourceSRS><TargetSRS>{wkt}</TargetSRS>"
        "</ReprojectionTransformer></ReprojectTransformer>"
        f"<DstGeoTransform>{forward}</DstGeoTransform>"
        f"<DstInvGeoTransform>{inverse}</DstInvGeoTransform>"
        "</GenImgProjTransformer></BaseTransformer></ApproxTransformer></Transformer>"
        f"<BandList>{mappings}</BandList></GDALWarpOptions></VRTDataset>"
    )
