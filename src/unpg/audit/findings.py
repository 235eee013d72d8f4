"""What an audit finds, one class per kind. The fields are the columns of the CSV files, in this order."""

from typing import Literal, NamedTuple

__all__ = ["IdentityMatch", "LabelNoise", "NearDuplicate"]


class LabelNoise(NamedTuple):
    """An image that is far from the other images of its identity."""

    image: str
    identity: str
    images_of_identity: int
    own_similarity: float
    """Cosine to the center of the identity's other images; below the threshold of strangers."""
    verdict: Literal["another", "nobody"]
    """``another``: it matches the center of another identity. ``nobody``: it matches none."""
    nearest_identity: str
    """The identity whose center is nearest, its own left out; empty if there is no other."""
    nearest_similarity: float | None
    """Cosine to that center."""
    nearest_image: str
    """The image of that identity that is most alike."""


class IdentityMatch(NamedTuple):
    """Two identities that look like one person: split within a set, or shared by two sets."""

    identity_a: str
    identity_b: str
    similarity: float
    """Cosine of the two centers; at least the threshold."""
    images_a: int
    images_b: int
    matching_pairs: int
    """Pairs of an image of one and an image of the other that reach the threshold themselves."""
    best_similarity: float
    """Cosine of the most alike of these pairs."""
    best_image_a: str
    best_image_b: str


class NearDuplicate(NamedTuple):
    """Two images that are one picture."""

    image_a: str
    identity_a: str
    image_b: str
    identity_b: str
    where: Literal["identity", "set", "against"]
    """Both in one ``identity``, in two identities of the ``set``, or the second in the set compared ``against``."""
    similarity: float
    """Cosine of the embeddings."""
    correlation: float
    """Of the grey pixels, at 32 x 32; the larger of that with the picture and with its mirror image."""
    mirrored: bool
    """The mirror image fits better."""
