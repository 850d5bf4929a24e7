"""pix2pix: translation by a conditional adversarial network, with a water head beside it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from flora.datasets.base import Batch
from flora.models.unet import UNet
from flora.training.objective import FloraLoss, LossWeights
from flora.training.task import Learner, Task

# Isola et al. weigh L1 with 100 and the adversarial loss with 1; the same ratio on the scale of
# the other losses here.
ADVERSARIAL = 0.01
LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)  # section 3.3 there


class PatchDiscriminator(nn.Module):
    """Tells patches of real optical images from made ones, given the SAR image.

    The 70 px discriminator of Isola et al., Image-to-Image Translation with Conditional
    Adversarial Networks, CVPR 2017, with fewer channels.

    Args:
        in_channels: SAR bands plus optical bands.
        width: Channels of the first layer.
    """

    def __init__(self, in_channels: int, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for factor, stride in ((1, 2), (2, 2), (4, 1)):
            layers += [
                nn.Conv2d(
                    factor * width, 2 * factor * width, 4, stride=stride, padding=1, bias=False
                ),
                nn.GroupNorm(8, 2 * factor * width),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(8 * width, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, sar: Tensor, image: Tensor) -> Tensor:
        """Logits of "real", one a patch, of SAR (B, C_s, H, W) and image (B, C_o, H, W)."""
        return self.layers(torch.cat([sar, image], dim=1))  # type: ignore[no-any-return]


class Pix2PixTask(Task):
    """Train generator and discriminator in one step.

    The image terms are L1 and the adversarial loss; water is trained as for the multitask U-Net.
    The generator's loss runs through a copy of the discriminator that holds its present weights
    as constants, and the discriminator sees images without their history, so each gradient goes
    where it belongs and both can be summed.

    Args:
        model: The generator, a multitask `UNet` that sees SAR alone.
        optical_channels: Bands of the image it makes.
        loss: Weights of the loss terms; those of the image but Charbonnier's are replaced.
    """

    model: UNet

    def __init__(self, model: UNet, optical_channels: int, loss: LossWeights | None = None) -> None:
        super().__init__(model)
        self.discriminator = PatchDiscriminator(model.in_channels + optical_channels)
        weights = replace(loss or LossWeights(), charbonnier=1.0, ssim=0.0, edge=0.0, spectrum=0.0)
        self.loss = FloraLoss(weights)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `flora.training.task.Task`."""
        output = self.model(batch["sar"])
        total, terms = self.loss(output, batch, teacher=None)
        seen = batch["optical_valid"].unsqueeze(1)
        real, made = batch["optical"] * seen, output.rgb * seen
        constants = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = functional_call(self.discriminator, constants, (batch["sar"], made))
        generator = F.softplus(-fooled).mean()  # -log D(made)
        discriminator = (
            F.softplus(-self.discriminator(batch["sar"], real)).mean()
            + F.softplus(self.discriminator(batch["sar"], made.detach())).mean()
        ) / 2
        terms |= {"generator": generator.detach(), "discriminator": discriminator.detach()}
        return total + ADVERSARIAL * generator + discriminator, terms

    def learners(self) -> list[Learner]:
        """Generator and discriminator, each with the paper's Adam and its own clipping."""
        networks = (self.model, self.discriminator)
        return [Learner(network, LEARNING_RATE, BETAS) for network in networks]

    def describe(self) -> dict[str, Any]:
        """See `flora.training.task.Task`; to be run, the generator is a U-Net."""
        return {
            "model": "unet",
            "config": self.model.config,
            "adversarial": ADVERSARIAL,
            "loss": asdict(self.loss.weights),
        }
