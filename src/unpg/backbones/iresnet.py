"""Improved residual networks for faces (IResNet), from 200 layers down to one for CPUs and small crops.

Blocks of Duta et al., "Improved Residual Networks for Image and Video Recognition" (arXiv 2004.04989), in the
form that the field trains: batch norm first, PReLU, the stride on the second convolution, and a linear layer
over the flattened last map instead of pooling (Deng et al., ArcFace, arXiv 1801.07698). Names in the state
dict are those of insightface's ``arcface_torch`` and of the UNPG authors, so their weights load as they are.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from unpg.backbones.base import BACKBONES, Backbone, positive_int
from unpg.errors import ConfigError

__all__ = [
    "IResNet",
    "IResNetBlock",
    "iresnet18",
    "iresnet34",
    "iresnet50",
    "iresnet100",
    "iresnet200",
    "small_iresnet",
]

LastNormWeight = Literal["trained", "frozen"]
WIDTHS = (64, 128, 256, 512)
TOTAL_STRIDE = 16
_THIN = 16


class _ThinProjection(nn.Conv2d):
    """A strided 1x1 convolution that drops the pixels first, and then has stride one: the same numbers.

    With fewer than 16 channels in channels_last, the backward pass of the strided one writes outside its memory in
    torch 2.13 on CPUs with AVX-512 ("double free or corruption").
    """

    def forward(self, x: Tensor) -> Tensor:
        """(b, in, h, w) to (b, out, ceil(h / stride), ceil(w / stride))."""
        step = self.stride[0]
        return functional.conv2d(x[:, :, ::step, ::step], self.weight)


class IResNetBlock(nn.Module):
    """BN, 3x3, BN, PReLU, 3x3 with the stride, BN; added to the input (projected where the shape changes).

    Args:
        width_in: Channels that come in.
        width: Channels that go out.
        stride: Of the second convolution, in pixels of the map.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or width_in != width:
            projection = _ThinProjection if width_in < _THIN else nn.Conv2d
            self.downsample = nn.Sequential(
                projection(width_in, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(b, width_in, h, w) to (b, width, ceil(h / stride), ceil(w / stride))."""
        shortcut = x if self.downsample is None else self.downsample(x)
        residual: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return residual + shortcut


class IResNet(Backbone):
    """An improved residual network of four stages, each of which halves the map.

    Args:
        dim: Embedding size.
        input_size: (height, width) in pixels. The last map is (ceil(height / 16), ceil(width / 16)).
        blocks: Blocks in each of the four stages.
        widths: Channels of each stage; the stem has those of the first.
        dropout: Share of the last map's values that is dropped before the last linear layer. 0 as in the UNPG
            authors' runs.
        last_norm_weight: ``"trained"`` lets the scale of the final batch norm be learned (the UNPG authors);
            ``"frozen"`` holds it at 1 (insightface).

    Convolutions start from He's normal initialization over their outputs, as the UNPG authors' do.

    Raises:
        ConfigError: A setting out of range.
    """

    block_types: ClassVar[tuple[type[nn.Module], ...]] = (IResNetBlock,)

    def __init__(
        self,
        *,
        dim: int,
        input_size: Sequence[int],
        blocks: Sequence[int],
        widths: Sequence[int] = WIDTHS,
        dropout: float = 0.0,
        last_norm_weight: LastNormWeight = "trained",
    ) -> None:
        super().__init__(dim, input_size)
        blocks, widths = _four("blocks", blocks), _four("widths", widths)
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"backbone.dropout must lie in [0, 1), got {dropout!r}.")
        if last_norm_weight not in ("trained", "frozen"):
            raise ConfigError(f"backbone.last_norm_weight must be 'trained' or 'frozen', got {last_norm_weight!r}.")
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = nn.PReLU(widths[0])
        self.layer1 = _stage(widths[0], widths[0], blocks[0])
        self.layer2 = _stage(widths[0], widths[1], blocks[1])
        self.layer3 = _stage(widths[1], widths[2], blocks[2])
        self.layer4 = _stage(widths[2], widths[3], blocks[3])
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.dropout = nn.Dropout(dropout)
        cells = -(-self.input_size[0] // TOTAL_STRIDE) * -(-self.input_size[1] // TOTAL_STRIDE)
        self.fc = nn.Linear(widths[3] * cells, dim)
        self.features = nn.BatchNorm1d(dim)
        self.features.weight.requires_grad_(last_norm_weight == "trained")
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def trunk(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) to the last map (b, c, ceil(h / 16), ceil(w / 16))."""
        x = self.prelu(self.bn1(self.conv1(images)))
        maps: Tensor = self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        return maps

    def project(self, maps: Tensor) -> Tensor:
        """The flattened last map to embeddings (b, d)."""
        embeddings: Tensor = self.features(self.fc(self.dropout(maps.flatten(1))))
        return embeddings


def _stage(width_in: int, width: int, blocks: int) -> nn.Sequential:
    first = IResNetBlock(width_in, width, stride=2)
    return nn.Sequential(first, *(IResNetBlock(width, width, stride=1) for _ in range(blocks - 1)))


def _four(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or len(values) != 4:
        raise ConfigError(f"backbone.{name} must be four numbers, one for each stage, got {values!r}.")
    return tuple(positive_int(name, value) for value in values)


def _published(layers: int, blocks: tuple[int, int, int, int]) -> Callable[..., IResNet]:
    def build(
        *,
        dim: int = 512,
        input_size: Sequence[int] = (112, 112),
        dropout: float = 0.0,
        last_norm_weight: LastNormWeight = "trained",
    ) -> IResNet:
        return IResNet(
            dim=dim,
            input_size=input_size,
            blocks=blocks,
            dropout=dropout,
            last_norm_weight=last_norm_weight,
        )

    build.__name__ = build.__qualname__ = f"iresnet{layers}"
    build.__doc__ = f"IResNet with {blocks} blocks of the usual widths; settings as :class:`IResNet`."
    BACKBONES.register(build.__name__)(build)
    return build


iresnet18 = _published(18, (2, 2, 2, 2))
iresnet34 = _published(34, (3, 4, 6, 3))
iresnet50 = _published(50, (3, 4, 14, 3))
iresnet100 = _published(100, (3, 13, 30, 3))
iresnet200 = _published(200, (6, 26, 60, 6))


@BACKBONES.register("small_iresnet")
def small_iresnet(
    *,
    dim: int = 256,
    input_size: Sequence[int] = (64, 64),
    blocks: Sequence[int] = (2, 2, 2, 2),
    widths: Sequence[int] = (16, 32, 64, 128),
    dropout: float = 0.0,
    last_norm_weight: LastNormWeight = "trained",
) -> IResNet:
    """A thin IResNet for CPUs and small crops; settings as :class:`IResNet`."""
    return IResNet(
        dim=dim,
        input_size=input_size,
        blocks=blocks,
        widths=widths,
        dropout=dropout,
        last_norm_weight=last_norm_weight,
    )
