"""MobileFaceNet: about a million weights, for phones and CPUs (Chen et al., arXiv 1804.07573).

One class holds the public forms, which differ in sizes only:

==========================================  =====  ==========  =====  ============
form                                        dim    input_size  scale  blocks
==========================================  =====  ==========  =====  ============
the paper's, 512-d                          512    (112, 112)  1      (1, 4, 6, 2)
Xiaoccer/MobileFaceNet_Pytorch              128    (112, 96)   1      (1, 4, 6, 2)
``mbf`` of insightface's arcface_torch      512    (112, 112)  2      (1, 4, 6, 2)
``mbf_large`` of insightface                512    (112, 112)  4      (2, 8, 12, 4)
==========================================  =====  ==========  =====  ============

Names in the state dict are Xiaoccer's; ``unpg.export`` renames insightface's.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from unpg.backbones.base import BACKBONES, Backbone, positive_int
from unpg.errors import ConfigError

__all__ = ["MobileFaceNet"]

TOTAL_STRIDE = 16
LAST_WIDTH = 512


class NormedConv(nn.Module):
    """Convolution without bias, batch norm and, unless it is linear, PReLU.

    Args:
        width_in: Channels that come in.
        width: Channels that go out.
        kernel: (height, width) of the kernel in pixels of the map.
        stride: In pixels of the map.
        padding: In pixels of the map.
        groups: Groups of channels that do not see each other.
        linear: Leave the PReLU out.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.prelu: nn.PReLU | None = None if linear else nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        """(b, width_in, h, w) to (b, width, h', w')."""
        y: Tensor = self.bn(self.conv(x))
        return y if self.prelu is None else self.prelu(y)


class Bottleneck(nn.Module):
    """1x1 to ``hidden`` channels, 3x3 in each alone, 1x1 to ``width``; added to the input where it fits.

    Args:
        width_in: Channels that come in.
        hidden: Channels of the depthwise convolution.
        width: Channels that go out.
        stride: Of the depthwise convolution.
    """

    def __init__(self, width_in: int, hidden: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and width_in == width
        self.conv = nn.Sequential(
            nn.Conv2d(width_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.PReLU(hidden),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.PReLU(hidden),
            nn.Conv2d(hidden, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, width_in, h, w) to (b, width, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


@BACKBONES.register("mobilefacenet")
class MobileFaceNet(Backbone):
    """MobileFaceNet with a global depthwise convolution in place of pooling.

    Args:
        dim: Embedding size.
        input_size: (height, width) in pixels. The global convolution is as large as the last map,
            (ceil(height / 16), ceil(width / 16)).
        scale: Multiplies the channels between the bottlenecks, 64 and 128; those within them stay 128, 256
            and 512 whatever the scale, which is insightface's reading of a wider network.
        blocks: How many residual bottlenecks follow the stem and each halving of the map. A first entry of 1
            stands for the paper's single depthwise convolution (in groups of ``scale`` channels).

    Raises:
        ConfigError: A setting out of range.
    """

    block_types: ClassVar[tuple[type[nn.Module], ...]] = (Bottleneck,)

    def __init__(
        self,
        *,
        dim: int = 512,
        input_size: Sequence[int] = (112, 112),
        scale: int = 1,
        blocks: Sequence[int] = (1, 4, 6, 2),
    ) -> None:
        super().__init__(dim, input_size)
        if not isinstance(blocks, Sequence) or len(blocks) != 4:
            raise ConfigError(f"backbone.blocks must be four numbers, got {blocks!r}.")
        early, *later = (positive_int("blocks", count) for count in blocks)
        narrow, wide = 64 * positive_int("scale", scale), 128 * scale

        self.conv1 = NormedConv(3, narrow, (3, 3), stride=2, padding=1)
        self.dw_conv1: nn.Module
        if early == 1:
            self.dw_conv1 = NormedConv(narrow, narrow, (3, 3), padding=1, groups=64)
        else:
            self.dw_conv1 = nn.Sequential(*(Bottleneck(narrow, 128, narrow, 1) for _ in range(early)))
        self.blocks = nn.Sequential(
            Bottleneck(narrow, 128, narrow, 2),
            *(Bottleneck(narrow, 128, narrow, 1) for _ in range(later[0])),
            Bottleneck(narrow, 256, wide, 2),
            *(Bottleneck(wide, 256, wide, 1) for _ in range(later[1])),
            Bottleneck(wide, 512, wide, 2),
            *(Bottleneck(wide, 256, wide, 1) for _ in range(later[2])),
        )
        self.conv2 = NormedConv(wide, LAST_WIDTH, (1, 1))
        last_map = (-(-self.input_size[0] // TOTAL_STRIDE), -(-self.input_size[1] // TOTAL_STRIDE))
        self.linear7 = NormedConv(LAST_WIDTH, LAST_WIDTH, last_map, groups=LAST_WIDTH, linear=True)
        self.linear1 = NormedConv(LAST_WIDTH, dim, (1, 1), linear=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # Fan-out without the division by groups: depthwise kernels would else start far too large.
                fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=(2.0 / fan) ** 0.5)

    def trunk(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) to the last map (b, 512, ceil(h / 16), ceil(w / 16))."""
        maps: Tensor = self.conv2(self.blocks(self.dw_conv1(self.conv1(images))))
        return maps

    def project(self, maps: Tensor) -> Tensor:
        """The last map to embeddings (b, d)."""
        embeddings: Tensor = self.linear1(self.linear7(maps))
        return embeddings.flatten(1)
