"""Pictures made beforehand and controls that choose among them: no kernel, no network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flora.errors import FloraError
from flora.figures.plots import BookFigure
from flora.figures.widgets import widget_page

# What the figures of one slider may take of a page, in bytes: more of them are drawn less sharp.
_MOST_BYTES = 300_000
_SHARPNESS = (1.0, 0.75, 0.5)  # of a figure's own resolution, which is twice what is shown


class PictureSlider:
    """Pictures of one thing under settings that the reader changes by mouse, finger or keys.

    The first picture and its setting stand in the page itself: without JavaScript they remain.

    Args:
        frames: The pictures by the words for their setting, in the slider's order; under several
            settings by the tuple of the words, one picture for each combination. A picture is a
            figure of `flora.figures.plots`, or an array (H, W, 3): uint8, or floats in [0, 1].
        label: What the slider sets, e.g. "cloud cover"; under several settings one label for each.
        alt: What the pictures show, for those who cannot see them; the setting is added.
        start: The setting shown at first; the first one by default.
        buttons: Offer a button for each word where the words have no order. A setting of two
            words always gets buttons.

    Raises:
        FloraError: If there are fewer than two pictures, a combination has none, one is no
            picture, their heights or widths differ by more than a fifth, or `start` is not among
            them.
    """

    def __init__(
        self,
        frames: Mapping[str, Any] | Mapping[tuple[str, ...], Any],
        *,
        label: str | tuple[str, ...],
        alt: str,
        start: str | tuple[str, ...] | None = None,
        buttons: bool = False,
    ) -> None:
        if len(frames) < 2:
            raise FloraError(f"frames: {len(frames)} given, and a slider needs two or more")
        self.labels = (label,) if isinstance(label, str) else label
        pictures = {_words(setting): picture for setting, picture in frames.items()}
        self.axes = _axes(pictures, len(self.labels))
        self.settings = list(product(*self.axes))
        if start is not None and _words(start) not in pictures:
            listed = ", ".join(", ".join(words) for words in self.settings)
            raise FloraError(f"start {start!r}: expected one of {listed}")
        self.alt = alt
        self.buttons = buttons
        self.start = 0 if start is None else self.settings.index(_words(start))
        images, widths = zip(
            *(_image(words, pictures[words]) for words in self.settings), strict=True
        )
        self.size = _common_size(images)
        self.width = max(widths)
        self._files = _encoded(images, self.size, exactly=self.width == self.size[0])

    def __repr__(self) -> str:
        axes = zip(self.labels, self.axes, strict=True)
        return f"PictureSlider({'; '.join(f'{name}: ' + ', '.join(axis) for name, axis in axes)})"

    def _repr_html_(self) -> str:
        images = "\n".join(self._images())
        digest = hashlib.sha256((images + repr(self)).encode()).hexdigest()[:12]
        return widget_page("picture_slider").substitute(
            key=digest,
            width=self.width,
            images=images,
            controls="\n".join(
                self._control(f"flora-{digest}-{number}", number)
                for number in range(len(self.axes))
            ),
        )

    def _images(self) -> Iterator[str]:
        width, height = self.size
        for number, (words, file) in enumerate(zip(self.settings, self._files, strict=True)):
            named = zip(self.labels, words, strict=True)
            alt = f"{self.alt} {', '.join(f'{name}: {word}' for name, word in named)}."
            data = base64.b64encode(file).decode("ascii")
            yield (
                f'<img src="data:image/webp;base64,{data}" alt="{escape(alt)}" width="{width}" '
                f'height="{height}"{"" if number == self.start else " hidden"}>'
            )

    def _control(self, key: str, number: int) -> str:
        """A slider with its label, or a group of buttons, for one of the settings."""
        label, words = escape(self.labels[number]), self.axes[number]
        chosen = words.index(self.settings[self.start][number])
        if not self.buttons and len(words) > 2:
            listed = escape(json.dumps(words))
            return (
                f'<label for="{key}">{label}: <output for="{key}">{escape(words[chosen])}</output>'
                f'</label>\n<input id="{key}" type="range" min="0" max="{len(words) - 1}" step="1" '
                f'value="{chosen}" data-axis="{len(words)}" data-words="{listed}" '
                f'aria-valuetext="{escape(words[chosen])}">'
            )
        buttons = "\n".join(
            f'<label><input type="radio" name="{key}" value="{at}"'
            f"{' checked' if at == chosen else ''}> {escape(word)}</label>"
            for at, word in enumerate(words)
        )
        return f'<fieldset data-axis="{len(words)}"><legend>{label}</legend>\n{buttons}</fieldset>'


def _words(setting: str | tuple[str, ...]) -> tuple[str, ...]:
    return (setting,) if isinstance(setting, str) else setting


def _axes(pictures: Mapping[tuple[str, ...], Any], count: int) -> list[list[str]]:
    """The words of each setting, in the order in which they first appear."""
    if any(len(words) != count for words in pictures):
        raise FloraError(f"frames: expected {count} words for each picture, one for each label")
    axes = [list(dict.fromkeys(words)) for words in zip(*pictures, strict=True)]
    missing = [", ".join(words) for words in product(*axes) if words not in pictures]
    if missing:
        raise FloraError(f"frames: no picture for {missing[0]}; expected one for each combination")
    return axes


def _image(words: tuple[str, ...], picture: Any) -> tuple[Image.Image, int]:
    """A picture, and the width in pixels at which it is shown."""
    if isinstance(picture, BookFigure):
        return picture.picture()
    values: NDArray[Any] = np.asarray(picture)
    if values.ndim != 3 or values.shape[2] != 3 or values.size == 0:
        raise FloraError(
            f"frame {', '.join(words)!r} of shape {values.shape}: expected (rows, columns, 3), or "
            "a figure"
        )
    if values.dtype != np.uint8:
        values = np.rint(255 * np.clip(values.astype(np.float64), 0.0, 1.0)).astype(np.uint8)
    return Image.fromarray(values), values.shape[1]


def _common_size(images: Sequence[Image.Image]) -> tuple[int, int]:
    """The largest width and height: figures differ by pixels where a title is wider."""
    sizes = np.array([image.size for image in images])
    if (sizes.min(axis=0) < 0.8 * sizes.max(axis=0)).any():
        listed = ", ".join(f"{width} x {height}" for width, height in sizes.tolist())
        raise FloraError(f"frames of {listed} px: expected one size; draw them on one layout")
    width, height = sizes.max(axis=0).tolist()
    return width, height


def _encoded(images: Sequence[Image.Image], size: tuple[int, int], *, exactly: bool) -> list[bytes]:
    """The files of the pictures, arrays exactly; figures are as sharp as the bytes allow."""
    whole = [_on_white(image, size) for image in images]
    if exactly:
        return [_webp(image, lossless=True) for image in whole]
    for sharpness in _SHARPNESS:
        scaled = [image.resize([round(sharpness * side) for side in size]) for image in whole]
        files = [_webp(image, lossless=False) for image in scaled]
        if sum(map(len, files)) <= _MOST_BYTES:
            break
    return files


def _on_white(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    whole = Image.new("RGB", size, "white")
    whole.paste(image, (0, 0))
    return whole


def _webp(image: Image.Image, lossless: bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="webp", lossless=lossless, quality=72, method=4)
    return buffer.getvalue()
