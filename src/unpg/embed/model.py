"""A backbone together with what it needs to be used: the form in which networks are saved, judged and served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unpg.backbones import Backbone, create_backbone
from unpg.errors import ConfigError
from unpg.transforms.tensor import Preprocessing

__all__ = ["Model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A backbone that knows how its images must be prepared and how it was built.

    Args:
        backbone: The network, (b, 3, h, w) to (b, d).
        preprocessing: From aligned uint8 images to the network's input; belongs to the weights.
        kind: The backbone's name in :data:`unpg.backbones.BACKBONES`.
        settings: What the backbone was built with besides ``dim`` and ``input_size``.
        info: Free notes that JSON can hold: where the weights come from, how they were trained.

    Raises:
        ConfigError: The preprocessing makes images of another size than the backbone takes.
    """

    backbone: Backbone
    preprocessing: Preprocessing
    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if tuple(self.preprocessing.size) != tuple(self.backbone.input_size):
            raise ConfigError(
                f"preprocessing.size is {tuple(self.preprocessing.size)} but the backbone's input_size is "
                f"{tuple(self.backbone.input_size)}, both (height, width); make them equal."
            )

    @classmethod
    def create(
        cls,
        kind: str,
        *,
        dim: int = 512,
        input_size: Sequence[int] = (112, 112),
        preprocessing: Preprocessing | None = None,
        info: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> "Model":
        """A model with a freshly initialized backbone.

        Args:
            kind: A name in :data:`unpg.backbones.BACKBONES`.
            dim: Embedding size.
            input_size: (height, width) in pixels.
            preprocessing: Default: the whole image, RGB, (x - 127.5) / 127.5.
            info: Free notes.
            settings: Further settings of this kind of backbone.

        Raises:
            ConfigError: As :func:`unpg.backbones.create_backbone`, or sizes that do not fit.
        """
        backbone = create_backbone(kind, dim=dim, input_size=input_size, **settings)
        return cls(
            backbone=backbone,
            preprocessing=preprocessing or Preprocessing(size=backbone.input_size),
            kind=kind,
            settings=settings,
            info=info or {},
        )
