"""What happens to images between the decoder and the network, batched, on the device."""

from unpg.transforms.augment import Augment
from unpg.transforms.tensor import Preprocessing

__all__ = ["Augment", "Preprocessing"]
