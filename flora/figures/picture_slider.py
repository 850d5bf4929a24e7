"""A slider that switches among pictures made beforehand: no kernel, no network, one output cell."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flora.errors import FloraError
from flora.figures.widgets import widget_page


class PictureSlider:
    """Pictures of one thing under a setting that the reader moves by mouse, finger or keys.

    The first picture and its setting stand in the page itself: without JavaScript they remain.

    Args:
        frames: The pictures by the words for their setting, in the slider's order. A picture is
            anything that a notebook shows as PNG (a figure of `flora.figures.plots`), or an array
            (H, W, 3): uint8, or floats in [0, 1].
        label: What the slider sets, e.g. "cloud cover".
        alt: What the pictures show, for those who cannot see them; the setting is added.
        start: The setting shown at first; the first one by default.

    Raises:
        FloraError: If there are fewer than two pictures, one is no picture, their heights or
            widths differ by more than a fifth, or `start` is not among them.
    """

    def __init__(
        self, frames: Mapping[str, Any], *, label: str, alt: str, start: str | None = None
    ) -> None:
        if len(frames) < 2:
            raise FloraError(f"frames: {len(frames)} given, and a slider needs two or more")
        settings = list(frames)
        if start is not None and start not in frames:
            raise FloraError(f"start {start!r}: expected one of {', '.join(settings)}")
        self.label = label
        self.alt = alt
        self.settings = settings
        self.start = 0 if start is None else settings.index(start)
        images = [_image(setting, picture) for setting, picture in frames.items()]
        self.size = _common_size(images)
        self._files = [_webp(image, self.size) for image in images]

    def __repr__(self) -> str:
        return f"PictureSlider({self.label}: {', '.join(self.settings)})"

    def _repr_html_(self) -> str:
        width, height = self.size
        images = "\n".join(
            f'<img src="data:image/webp;base64,{base64.b64encode(file).decode("ascii")}" '
            f'alt="{escape(f"{self.alt} {self.label}: {setting}.")}" data-setting='
            f'"{escape(setting)}" width="{width}" height="{height}"'
            f"{'' if number == self.start else ' hidden'}>"
            for number, (setting, file) in enumerate(zip(self.settings, self._files, strict=True))
        )
        digest = hashlib.sha256(images.encode() + self.label.encode())
        return widget_page("picture_slider").substitute(
            key=digest.hexdigest()[:12],
            width=width,
            images=images,
            label=escape(self.label),
            last=len(self.settings) - 1,
            start=self.start,
            setting=escape(self.settings[self.start]),
        )


def _image(setting: str, picture: Any) -> Image.Image:
    if hasattr(picture, "_repr_png_"):
        return Image.open(io.BytesIO(picture._repr_png_())).convert("RGB")
    values: NDArray[Any] = np.asarray(picture)
    if values.ndim != 3 or values.shape[2] != 3 or values.size == 0:
        raise FloraError(
            f"frame {setting!r} of shape {values.shape}: expected (rows, columns, 3), or a figure"
        )
    if values.dtype != np.uint8:
        values = np.rint(255 * np.clip(values.astype(np.float64), 0.0, 1.0)).astype(np.uint8)
    return Image.fromarray(values)


def _common_size(images: list[Image.Image]) -> tuple[int, int]:
    """The largest width and height: figures differ by pixels where a title is wider."""
    sizes = np.array([image.size for image in images])
    if (sizes.min(axis=0) < 0.8 * sizes.max(axis=0)).any():
        listed = ", ".join(f"{width} x {height}" for width, height in sizes.tolist())
        raise FloraError(f"frames of {listed} px: expected one size; draw them on one layout")
    width, height = sizes.max(axis=0).tolist()
    return width, height


def _webp(image: Image.Image, size: tuple[int, int]) -> bytes:
    """The exact picture, on white up to `size`, in fewer bytes than a PNG takes."""
    if image.size != size:
        whole = Image.new("RGB", size, "white")
        whole.paste(image, (0, 0))
        image = whole
    buffer = io.BytesIO()
    image.save(buffer, format="webp", lossless=True)
    return buffer.getvalue()
