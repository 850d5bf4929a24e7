import base64
import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from flora.colours import (
    DRY_COLOUR,
    FALSE_ALARM_COLOUR,
    MISS_COLOUR,
    OVERLAY_COLOUR,
    WATER_COLOUR,
    probability_ramp,
    rgb_bytes,
)
from flora.errors import FloraError
from flora.figures import plots
from flora.figures.sheets import quicklook, sample_figure
from flora.figures.training import training_curves
from flora.sensors import OMBRIA_S1, OMBRIA_S2, SENTINEL1, OpticalStack


def pixels(figure):
    """The figure as it is drawn, (rows, columns, 3) uint8."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def share_of(figure, colour):
    """Share of the drawn pixels that have (nearly) a colour."""
    drawn = pixels(figure).astype(int)
    return (np.abs(drawn - np.multiply(to_rgb(colour), 255)).max(axis=-1) < 4).mean()


def luminance(colour):
    """Relative luminance after WCAG 2, 0 to 1."""
    channels = np.asarray(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def sample(bands=2, before=False):
    random = np.random.default_rng(0)
    made = {
        "sar": torch.tensor(random.normal(size=(bands, 16, 20)), dtype=torch.float32),
        "sar_valid": torch.ones(16, 20, dtype=torch.bool),
        "optical": torch.rand(3, 16, 20, generator=torch.Generator().manual_seed(0)),
        "optical_valid": torch.ones(16, 20, dtype=torch.bool),
        "index": torch.zeros(1, 16, 20),
        "water": torch.randint(0, 2, (16, 20), generator=torch.Generator().manual_seed(1)),
    }
    if before:
        made["before"] = OpticalStack(made["optical"], made["index"], made["optical_valid"])
    return made


def panels(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def test_importing_and_drawing_leave_matplotlib_as_it_was():
    code = (
        "import matplotlib as mpl, sys\n"
        "before = {key: mpl.rcParams[key] for key in mpl.rcParams if key != 'backend'}\n"
        "from flora.figures import sheets\n"
        "sheets.quicklook([[-12.0]], [[1]])\n"
        "assert all(mpl.rcParams[key] == before[key] for key in before)\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with plots.style():
        assert mpl.rcParams["axes.titlesize"] == plots.STYLE["axes.titlesize"]
        assert mpl.rcParams["axes.titlesize"] != mpl.rcParamsDefault["axes.titlesize"]


def test_lines_are_encoded_exactly_and_speckle_in_fewer_bytes():
    lines, axes = plots.figure()
    axes[0, 0].plot([0, 1], [0, 1])
    grain, axes = plots.figure()
    plots.show_backscatter(axes[0, 0], np.random.default_rng(0).normal(-12, 4, (200, 200)))
    for made, kind in ((lines, "image/png"), (grain, "image/jpeg")):
        image, width = made.picture()
        data, metadata = made._repr_mimebundle_()
        decoded = Image.open(io.BytesIO(base64.b64decode(data[kind]))).convert("RGB")
        apart = np.abs(np.asarray(decoded, float) - np.asarray(image, float))
        assert (apart.max() == 0) == (made is lines)
        assert apart.mean() < 3
        assert metadata[kind] == {"width": width}
        assert abs(image.width - 2 * width) <= 1


def test_many_soft_lines_keep_their_colours_in_fewer_bytes_than_jpeg():
    made, axes = plots.figure(1, 2, panel=(3.0, 2.4))
    random = np.random.default_rng(0)
    for ax in axes.flat:
        ax.plot(random.random((200, 2)) + np.array([0, 2]))
        ax.plot([30], [0.5], ".", color="#123456", markersize=1)  # one dot of a colour of its own
    image, _ = made.picture()
    assert image.getcolors(256) is None
    kind, encoded = plots.smallest(image)
    near = io.BytesIO()
    image.save(near, format="jpeg", quality=70)
    assert kind == "image/png"
    assert len(encoded) < len(near.getvalue())
    decoded = Image.open(io.BytesIO(encoded)).convert("RGB")
    apart = np.abs(np.asarray(decoded, float) - np.asarray(image, float))
    assert np.percentile(apart, 99.9) <= 6
    assert apart.max() <= 30


def test_a_wide_figure_has_no_more_pixels_than_a_page_has_room_for():
    made, _ = plots.figure(1, 5)
    image, width = made.picture()
    assert abs(image.width - plots.SHARPEST) < 0.1 * plots.SHARPEST
    assert abs(width - 5 * 3 * plots.SCREEN_DPI) < 0.1 * width


def test_a_notebook_shows_a_figure_once_and_without_pyplot():
    """A plain Figure shows nothing before pyplot is imported, and twice if pyplot made it."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    book = nbformat.v4.new_notebook()
    source = "from flora.figures import plots\nfigure, axes = plots.figure()\nfigure"
    again = "import matplotlib.pyplot\nfigure"
    book.cells = [nbformat.v4.new_code_cell(code) for code in (source, again)]
    client(book, timeout=120).execute()
    for cell in book.cells:
        assert [sorted(out.data) for out in cell.outputs if "data" in out] == [
            ["image/png", "text/plain"]
        ]


def test_shared_colours_are_those_that_matplotlib_draws():
    drawn = mpl.colormaps["cividis"]((np.arange(101) / 100).astype(np.float32), bytes=True)
    assert (probability_ramp() == drawn[:, :3]).all()
    for colour in (WATER_COLOUR, DRY_COLOUR, OVERLAY_COLOUR):
        assert np.allclose(to_rgb(colour), np.divide(rgb_bytes(colour), 255))


@pytest.mark.parametrize("water", [WATER_COLOUR, OVERLAY_COLOUR])
def test_water_differs_in_lightness_not_in_hue_alone(water):
    ground = DRY_COLOUR if water == WATER_COLOUR else "black"
    low, high = sorted([luminance(water), luminance(ground)])
    assert (high + 0.05) / (low + 0.05) > 3  # WCAG 2.1, 1.4.11: graphical objects


def test_water_dry_and_unlabelled_are_drawn_apart():
    codes = np.zeros((10, 10), int)
    shares = []
    for code in (0, 1, 255):
        figure, axes = plots.figure()
        plots.show_water(axes[0, 0], np.full_like(codes, code), legend=False)
        shares.append([share_of(figure, c) for c in (DRY_COLOUR, WATER_COLOUR)])
    (dry_dry, dry_wet), (wet_dry, wet_wet), (none_dry, none_wet) = shares
    assert dry_dry > 0.5 and wet_wet > 0.5
    assert max(dry_wet, wet_dry, none_dry, none_wet) < 0.01


def test_nodata_is_hatched_and_named_only_where_there_is_some():
    for code, entries in ((255, ["water", "dry", "no data"]), (0, ["water", "dry"])):
        codes = np.zeros((10, 10), int)
        codes[:5] = code
        _, axes = plots.figure()
        ax = plots.show_water(axes[0, 0], codes)
        assert [text.get_text() for text in ax.get_legend().get_texts()] == entries
        assert ax.patch.get_hatch()
        assert np.ma.getmaskarray(np.ma.masked_invalid(ax.images[0].get_array())).any() == (
            code == 255
        )


def test_the_same_backscatter_is_the_same_grey_in_every_figure():
    limits = []
    for offset in (0, 8):
        _, axes = plots.figure()
        ax = plots.show_backscatter(axes[0, 0], np.linspace(-30, -5, 12).reshape(3, 4) + offset)
        limits.append(ax.images[0].get_clim())
    assert limits[0] == limits[1] == (-25.0, 0.0)


@pytest.mark.parametrize(
    ("pixel_metres", "text"), [(10.0, "200 m"), (100.0, "2 km"), (8.0, "200 m"), (0.5, "10 m")]
)
def test_scale_bar_has_a_round_length_and_is_as_long_as_it_says(pixel_metres, text):
    _, axes = plots.figure()
    ax = plots.show_rgb(axes[0, 0], np.zeros((3, 50, 100)))
    plots.scale_bar(ax, pixel_metres)
    assert ax.texts[0].get_text() == text
    number, unit = text.split()
    metres = float(number) * (1000 if unit == "km" else 1)
    (start, end), _ = ax.lines[0].get_data()
    assert (end - start) * 100 * pixel_metres == pytest.approx(metres)
    assert 0.1 < end - start <= 0.25


def test_round_lengths():
    found = [plots.round_length(length) for length in (1, 1.9, 2, 4.99, 5, 9.9, 10, 0.3, 12345)]
    assert found == pytest.approx([1, 1, 2, 2, 5, 5, 10, 0.2, 10000])


def test_sample_figure_has_a_panel_a_layer_with_units():
    figure = sample_figure(sample(), pixel_metres=10)
    assert panels(figure) == ["SAR VV", "SAR VH", "optical (B4, B3, B2)", "NDVI", "water label"]
    labels = {ax.get_ylabel() for ax in figure.axes}
    assert {"VV backscatter (dB)", "VH backscatter (dB)", "NDVI"} <= labels
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, SENTINEL1.restore(sample()["sar"].numpy())[0], rtol=1e-6)

    ombria = sample_figure(sample(1, before=True), OMBRIA_S1, OMBRIA_S2)
    names = ["SAR VV", "optical before (B11, B8, B3)", "optical (B11, B8, B3)", "NDWI"]
    assert panels(ombria) == [*names, "water label"]
    assert "VV backscatter (8-bit count)" in {ax.get_ylabel() for ax in ombria.axes}


def test_sample_figure_hides_what_was_not_measured():
    made = sample()
    made["sar_valid"][:4] = False
    shown = sample_figure(made).axes[0].images[0].get_array()
    assert np.ma.getmaskarray(np.ma.masked_invalid(shown))[:4].all()
    assert not np.ma.getmaskarray(np.ma.masked_invalid(shown))[4:].any()


def test_training_curves_plot_each_term_at_its_steps():
    rows = [{"step": s, "lr": 1e-3, "total": 1.0 / s, "dice": 0.5} for s in range(1, 201)]
    for row in rows[49::50]:
        row["valid_miou"] = row["step"] / 1000
    figure = training_curves(rows)
    assert panels(figure) == ["total", "dice", "valid miou"]
    raw, mean = figure.axes[0].lines
    np.testing.assert_allclose(raw.get_ydata(), [row["total"] for row in rows])
    # The mean of ten values lies in their middle: a straight line would stay where it is.
    assert mean.get_xdata()[0] == 6
    assert mean.get_ydata()[0] == pytest.approx(np.mean([1 / s for s in range(1, 11)]))
    (scores,) = figure.axes[2].lines
    assert scores.get_xdata().tolist() == [50, 100, 150, 200]
    assert panels(training_curves(rows, terms=["dice"])) == ["dice"]


@pytest.mark.parametrize("shape", [(1, 1), (7, 1001), (300, 20), (64, 64)])
@pytest.mark.parametrize("with_rgb", [True, False])
def test_quicklook_of_any_shape(shape, with_rgb):
    codes = np.zeros(shape, int)
    codes[0, 0] = 255
    rgb = np.full((3, *shape), 0.5) if with_rgb else None
    figure = quicklook(np.full(shape, -12.0), codes, rgb, pixel_metres=(10, 13), title="x")
    assert len(panels(figure)) == 2 + with_rgb
    drawn = pixels(figure)
    assert max(drawn.shape) < 2000
    assert figure.axes[0].get_aspect() == pytest.approx(1.3)


def test_quicklook_paints_the_water_only():
    codes = np.zeros((40, 40), int)
    dry = share_of(quicklook(np.full((40, 40), -20.0), codes), "#2c94e3")
    codes[:20] = 1
    figure = quicklook(np.full((40, 40), -20.0), codes)
    overlay = figure.axes[1].images[1].get_array()
    assert (overlay[:20, :, 3] > 0.5).all() and (overlay[20:, :, 3] == 0).all()
    assert dry < 0.001


def test_wrong_shapes_are_refused():
    _, axes = plots.figure()
    with pytest.raises(FloraError, match=r"backscatter of shape \(2, 3, 4\)"):
        plots.show_backscatter(axes[0, 0], np.zeros((2, 3, 4)))
    with pytest.raises(FloraError, match="rgb of shape"):
        plots.show_rgb(axes[0, 0], np.zeros((4, 3, 3)))
    with pytest.raises(FloraError, match="pixel_metres"):
        plots.scale_bar(axes[0, 0], float("nan"))
    with pytest.raises(FloraError, match="log is empty"):
        training_curves([])
    with pytest.raises(FloraError, match="no 'ssim'"):
        training_curves([{"step": 1, "dice": 1.0}], terms=["ssim"])


def test_errors_are_told_apart_by_kind():
    codes = {0: DRY_COLOUR, 1: FALSE_ALARM_COLOUR, 2: MISS_COLOUR, 3: WATER_COLOUR}
    truth, found = np.array([[0, 0, 1, 1, 255]]), np.array([[0, 1, 0, 1, 1]])
    made, axes = plots.figure()
    plots.show_errors(axes[0, 0], found, truth)
    shown = axes[0, 0].images[0]
    drawn = shown.cmap(shown.norm(shown.get_array()))[0]
    assert [tuple(drawn[n, :3]) for n in range(4)] == [to_rgb(colour) for colour in codes.values()]
    assert drawn[4, 3] == 0  # hatched ground: nobody knows
    words = [text.get_text() for text in axes[0, 0].get_legend().get_texts()]
    assert words == ["found", "missed", "false alarm", "dry, both", "no data"]
    assert share_of(made, MISS_COLOUR) > 0.02
    with pytest.raises(FloraError, match="expected one"):
        plots.show_errors(axes[0, 0], found, truth.T)
