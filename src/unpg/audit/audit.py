"""The audit of a set: everything that an embedding model can say against its labels."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from unpg.audit.duplicates import find_duplicates
from unpg.audit.findings import IdentityMatch, LabelNoise, NearDuplicate
from unpg.audit.identity_matches import find_identity_matches
from unpg.audit.label_noise import find_label_noise
from unpg.audit.side import Side
from unpg.audit.threshold import Threshold
from unpg.errors import ConfigError

__all__ = ["Audit", "Limits", "audit"]

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, all)."""


@dataclass(frozen=True)
class Limits:
    """From where on something is a finding.

    Args:
        match: Cosine from which on two centers, or an image and a center, are one person's.
        far: Cosine to the center of its identity's other images below which an image is far from them.
        near: Cosine of two embeddings from which on the pixels are compared.
        picture: Correlation of pixels from which on two images are one picture.

    Raises:
        ConfigError: A limit outside [-1, 1], or ``far`` above ``match``.
    """

    match: Threshold
    far: Threshold
    near: float = 0.8
    picture: float = 0.97

    def __post_init__(self) -> None:
        for name, value in (
            ("match", self.match.value),
            ("far", self.far.value),
            ("near", self.near),
            ("picture", self.picture),
        ):
            if not -1 <= value <= 1:
                raise ConfigError(f"Limits.{name} is a cosine or correlation in [-1, 1]; got {value}.")
        if self.far.value > self.match.value:
            raise ConfigError(
                f"An image far from its identity (below {self.far.value:.4f}) must be less alike than a match (from "
                f"{self.match.value:.4f} on). Lower the limit for far, or raise the threshold."
            )


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found.

    Attributes:
        side: The set.
        against: The set that it was compared with, if any.
        limits: From where on something counts.
        label_noise: Images far from their identity.
        split: Identities of the set that look like one person.
        duplicates: Pictures that are there twice, also across the two sets.
        shared: Identities of the two sets that look like one person.
    """

    side: Side
    against: Side | None
    limits: Limits
    label_noise: list[LabelNoise] = field(default_factory=list)
    split: list[IdentityMatch] = field(default_factory=list)
    duplicates: list[NearDuplicate] = field(default_factory=list)
    shared: list[IdentityMatch] = field(default_factory=list)

    @property
    def findings(self) -> int:
        """How many there are, of all kinds."""
        return len(self.label_noise) + len(self.split) + len(self.duplicates) + len(self.shared)


def audit(
    side: Side,
    limits: Limits,
    against: Side | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Audit:
    """Look for likely faults of a set, and for what it shares with another.

    All pairs are compared, exactly, block by block; only pairs above a limit are held.

    Args:
        side: The set.
        limits: From where on something is a finding.
        against: Another set, on which or with which the first is not to be tested or trained.
        device: Where to multiply.
        progress: Called as the work goes on.

    Raises:
        DataError: So many pairs are above a limit that the model or the limit must be wrong.
    """

    def tell(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(what, done, total)

    noise = find_label_noise(side, limits.match.value, limits.far.value)
    split = find_identity_matches(side, None, limits.match.value, device=device, progress=tell("identities"))
    duplicates = find_duplicates(side, None, limits.near, limits.picture, device=device, progress=tell("images"))
    shared: list[IdentityMatch] = []
    if against is not None:
        what = f"identities against {against.name}"
        shared = find_identity_matches(side, against, limits.match.value, device=device, progress=tell(what))
        what = f"images against {against.name}"
        duplicates += find_duplicates(side, against, limits.near, limits.picture, device=device, progress=tell(what))
    return Audit(side, against, limits, noise, split, duplicates, shared)
