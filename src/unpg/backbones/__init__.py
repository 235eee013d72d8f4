"""Networks from aligned faces to embeddings: one file each, built by name."""

from unpg.backbones.base import BACKBONES, Backbone, create_backbone
from unpg.backbones.iresnet import (
    IResNet,
    iresnet18,
    iresnet34,
    iresnet50,
    iresnet100,
    iresnet200,
    small_iresnet,
)
from unpg.backbones.mobilefacenet import MobileFaceNet

__all__ = [
    "BACKBONES",
    "Backbone",
    "IResNet",
    "MobileFaceNet",
    "create_backbone",
    "iresnet18",
    "iresnet34",
    "iresnet50",
    "iresnet100",
    "iresnet200",
    "small_iresnet",
]
