"""Who is in a set of rendered faces, and what is wrong with its labels on purpose.

Axes: k identities (labels), n images.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unpg.data.label_noise import flip_labels
from unpg.data.synthetic.identity import Identity, sample_identity
from unpg.data.synthetic.parameters import Draws
from unpg.errors import ConfigError

__all__ = ["TWIN_STEP", "Noise", "Population", "person", "require_whole"]

TWIN_STEP = 0.3
"""Which part of the way from one person to another a near-twin stands.

To a network trained on photographs, near-twins at this step are about as alike as two pictures of one person, but a
little less so (``benchmarks/synthetic.py``); at half the step it sees no difference.
"""

_STREAM = 0x7014  # keeps these draws apart from others of the same seed


@dataclass(frozen=True)
class Noise:
    """Faults of a labelled set whose truth is known. The number of identities and of images does not change.

    Args:
        split_identities: Share of the identities that are another one's person again: both halves look like one
            person and have two labels, so their pairs are false negatives.
        flipped_labels: Share of the images that show another person of the set than their label says.
        twins: Share of the identities that are near-twins of another one (:data:`TWIN_STEP`). They are other people:
            their pairs are true hard negatives, which a filter of noise should keep.

    Raises:
        ConfigError: A share is out of range.
    """

    split_identities: float = 0.0
    flipped_labels: float = 0.0
    twins: float = 0.0

    def __post_init__(self) -> None:
        for name in ("split_identities", "twins", "flipped_labels"):
            share = getattr(self, name)
            if not (isinstance(share, (int, float)) and 0 <= share <= 1):
                raise ConfigError(f"Noise.{name} is a share in [0, 1], got {share!r}.")
        if self.split_identities + self.twins > 0.5:
            raise ConfigError(
                f"Noise.split_identities and Noise.twins may be 0.5 together, since each such identity needs one of "
                f"its own to go with; got {self.split_identities} and {self.twins}."
            )


class Population:
    """``identities`` labels of the population ``seed``, and the person whom each shows.

    A person is a number: from 0 on those of :func:`~unpg.data.synthetic.identity.sample_identity`, and -1 - p is the
    near-twin of p. So a person does not depend on the noise of a set; only who is in it does.

    Args:
        identities: Number of labels.
        seed: Of the people; another seed gives other people.
        first_identity: Number of the first person. Sets whose numbers do not overlap share nobody.
        noise: Faults; shares are rounded to whole identities and images.

    Attributes:
        people: (k,) int64, the person of each label.
        names: The name of each label, in rising order.
        first: (k,) int64, the first label that shows the same person; another one than its own for the second half
            of a split identity.
        twin_of: (k,) int64, the label whose near-twin this one is, or -1.

    Raises:
        ConfigError: A count is not a whole number of at least 1, or the seed or the first identity not one of at
            least 0.
    """

    def __init__(self, identities: int, seed: int = 0, first_identity: int = 0, noise: Noise | None = None) -> None:
        require_whole("identities", identities, 1)
        require_whole("seed", seed, 0)
        require_whole("first_identity", first_identity, 0)
        self.seed, self.first_identity = seed, first_identity
        self.noise = Noise() if noise is None else noise
        split, twins = (round(share * identities) for share in (self.noise.split_identities, self.noise.twins))
        base = identities - split - twins
        if split + twins > base:
            raise ConfigError(
                f"Of {identities} identities {split} are to be halves and {twins} twins of another, but only {base} "
                "are left to go with. Lower the shares, or add identities."
            )
        draw = np.random.Generator(np.random.Philox(key=[seed % 2**64, _STREAM]))
        chosen = first_identity + draw.permutation(base)
        rows = [(first_identity + p, "") for p in range(base)]
        rows += [(int(p), "-again") for p in chosen[:split]]
        rows += [(-1 - int(p), "-twin") for p in chosen[split : split + twins]]
        named = sorted((f"seed{seed}-{max(p, -1 - p):06d}{end}", p) for p, end in rows)
        self.names = [name for name, _ in named]
        self.people: NDArray[np.int64] = np.array([p for _, p in named], dtype=np.int64)
        label: dict[int, int] = {}
        for k, p in enumerate(self.people.tolist()):
            label.setdefault(p, k)
        self.first: NDArray[np.int64] = np.array([label[p] for p in self.people.tolist()], dtype=np.int64)
        self.twin_of: NDArray[np.int64] = np.array(
            [label[-1 - p] if p < 0 else -1 for p in self.people.tolist()], dtype=np.int64
        )

    def __len__(self) -> int:
        return len(self.names)

    def shown(self, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Whom images with these labels (n,) show.

        Returns:
            True labels (n,): the first label of the person who is shown, so equal entries mean one person. And takes
            (n,): 0 for a right label; another number for pictures that must not repeat those of the right one.
        """
        halves = self.first[labels]
        takes = (halves != labels).astype(np.int64)
        if not self.noise.flipped_labels:
            return halves, takes
        true = flip_labels(halves, self.noise.flipped_labels, self.seed)
        return true, np.where(true != halves, 2 + labels, takes)

    def person(self, label: int) -> Identity:
        """The face of ``label``, if the label is right."""
        return person(self.seed, int(self.people[label]))


def person(seed: int, number: int) -> Identity:
    """The face of a person: ``number`` from 0 on, or the near-twin -1 - ``number`` of one.

    A near-twin has every parameter :data:`TWIN_STEP` of the way toward somebody whom no set shows.
    """
    if number >= 0:
        return sample_identity(seed, number)
    one = sample_identity(seed, -1 - number)
    other = sample_identity(seed, (1 << 64) + Draws(seed, -1 - number, "twin").word())
    moved = {
        f.name: getattr(one, f.name) + TWIN_STEP * (getattr(other, f.name) - getattr(one, f.name))
        for f in dataclasses.fields(Identity)
    }
    return Identity(**moved)


def require_whole(name: str, value: object, least: int) -> None:
    """Raise :class:`ConfigError` unless ``value`` is a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"Synthetic faces: {name} must be a whole number of at least {least}, got {value!r}.")
