"""The neighbourhood operators under losses and metrics."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from flora.training.operators import dilate, erode, gaussian_blur, masked, sar_edge, sobel


def everywhere(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def test_sobel_of_a_plane_is_its_slope_in_x_and_y() -> None:
    plane = 3.0 * torch.arange(6.0)[:, None] - 2.0 * torch.arange(7.0)
    x, y = sobel(plane[None, None])
    assert torch.allclose(x[..., 1:-1, 1:-1], torch.tensor(-2.0))
    assert torch.allclose(y[..., 1:-1, 1:-1], torch.tensor(3.0))


def test_blur_keeps_a_constant_whatever_is_masked() -> None:
    valid = torch.rand(1, 9, 3, generator=torch.Generator().manual_seed(0)) > 0.5
    image = torch.full((1, 2, 9, 3), 0.3).masked_fill(~valid[:, None], float("nan"))
    blurred = gaussian_blur(image, valid)
    assert torch.allclose(blurred[valid[:, None].expand_as(blurred)], torch.tensor(0.3))


def test_dilation_reaches_by_distance_and_erosion_undoes_it_on_a_square() -> None:
    mask = torch.zeros(1, 11, 11, dtype=torch.bool)
    mask[0, 5, 5] = True
    assert dilate(mask, 1).sum() == 5
    assert dilate(mask, 1.5).sum() == 9
    assert dilate(mask, 2).sum() == 13
    assert torch.equal(erode(dilate(mask, 1.5), 1.5), mask)
    assert erode(everywhere(1, 3, 3), 1.5).all()  # the border takes nothing away


def test_sar_edge_stands_out_of_speckle_and_points_to_the_bright_side() -> None:
    random = torch.Generator().manual_seed(1)
    speckle = 0.45 * torch.randn(1, 1, 128, 128, generator=random)  # 2.2 dB at 5 dB a unit
    valid = everywhere(1, 128, 128)
    assert sar_edge(speckle, valid)[2].mean() < 0.02
    step = torch.zeros(1, 1, 128, 128)
    step[..., 64:] = 1.6  # 8 dB between calm water and land
    x, y, weight = sar_edge(step + speckle, valid)
    assert weight[0, 0, :, 63:65].mean() > 0.6
    assert x[0, 0, :, 63:65].mean() > 0.95
    assert y[0, 0, :, 63:65].mean().abs() < 0.1


def test_what_is_masked_is_zero_and_gets_no_gradient_whatever_stood_there() -> None:
    image = torch.tensor([[[[0.5, float("nan"), float("inf"), -2.0]]]], requires_grad=True)
    mask = torch.tensor([[[True, False, False, True]]])
    filled = masked(image, mask)
    assert filled.flatten().tolist() == [0.5, 0.0, 0.0, -2.0]
    (filled * torch.tensor([3.0, float("nan"), 5.0, 7.0])).sum().backward()
    assert image.grad is not None
    assert image.grad.flatten().tolist() == [3.0, 0.0, 0.0, 7.0]


@pytest.mark.parametrize("size", [(7, 90), (64, 33)])
def test_blur_is_the_gaussian_of_the_mirrored_image_and_so_is_its_gradient(
    size: tuple[int, int],
) -> None:
    random = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, *size, generator=random, requires_grad=True)
    weights = torch.rand(2, 3, *size, generator=random)
    offset = torch.arange(-5, 6)
    line = torch.exp(-0.5 * (offset / 1.5) ** 2)
    window = torch.outer(line, line) / line.sum() ** 2
    mirrored = F.pad(image, (5, 5, 5, 5), mode="reflect")
    expected = F.conv2d(mirrored, window.expand(3, 1, 11, 11), groups=3)
    blurred = gaussian_blur(image, everywhere(2, *size))
    assert torch.allclose(blurred, expected, atol=1e-6)
    (slow,) = torch.autograd.grad((expected * weights).sum(), image)
    (fast,) = torch.autograd.grad((blurred * weights).sum(), image)
    assert torch.allclose(fast, slow, atol=1e-6)


@pytest.mark.parametrize("radius", [1.5, 2.0, 3.0])
def test_dilation_is_what_a_disc_covers(radius: float) -> None:
    mask = torch.rand(2, 20, 17, generator=torch.Generator().manual_seed(0)) > 0.97
    reach = int(radius)
    offset = torch.arange(-reach, reach + 1)
    disc = (offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2).float()
    near = F.conv2d(mask[:, None].float(), disc[None, None], padding=reach)[:, 0] > 0.5
    assert torch.equal(dilate(mask, radius), near)


def test_one_image_that_lies_pixel_by_pixel_in_memory_is_blurred_alike() -> None:
    image = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    expected = gaussian_blur(image, everywhere(1, 20, 24))
    scattered = image.to(memory_format=torch.channels_last)
    assert torch.equal(gaussian_blur(scattered, everywhere(1, 20, 24)), expected)
