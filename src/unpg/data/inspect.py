"""What is in an image set: counts, and images per identity as a histogram."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from unpg.data.image_set import ImageSet
from unpg.errors import DataError

__all__ = ["Info", "inspect_set"]

_SAMPLE = 64  # images decoded for their size
_BAR = 40  # characters of the longest bar


class Info(NamedTuple):
    """Counts of a set."""

    images: int
    identities: int
    sizes: dict[tuple[int, int], int]
    """(height, width) -> how many of the sampled images."""
    unreadable: int
    """Sampled images that cannot be decoded at the set's size."""
    histogram: list[tuple[int, int, int]]
    """(least, most, identities): how many identities have that many images; ranges double."""

    def text(self) -> str:
        """Lines for the screen."""
        sizes = ", ".join(f"{height} x {width}" for height, width in self.sizes)
        lines = [
            f"{self.images:,} images of {self.identities:,} identities",
            f"{sizes or 'no readable image'}: height x width in pixels of {sum(self.sizes.values())} images spread "
            f"over the set; {self.unreadable} others could not be read",
            "channels are decoded as RGB",
            "images per identity:",
        ]
        longest = max((count for *_, count in self.histogram), default=1)
        for least, most, count in self.histogram:
            label = str(least) if least == most else f"{least}-{most}"
            lines.append(f"  {label:>13} {count:>9,} {'#' * -(-_BAR * count // longest)}")
        return "\n".join(lines)


def inspect_set(image_set: ImageSet) -> Info:
    """Count; decodes up to 64 images, spread evenly, for their sizes. ``check`` decodes all."""
    sizes: Counter[tuple[int, int]] = Counter()
    unreadable = 0
    n = len(image_set)
    for i in np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(int)).tolist():
        try:
            height, width = image_set.read(i).shape[:2]
            sizes[height, width] += 1
        except DataError:
            unreadable += 1
    counts = np.bincount(image_set.labels, minlength=len(image_set.identities))
    histogram, least = [], 1
    while least <= counts.max(initial=0):
        inside = int(((counts >= least) & (counts < 2 * least)).sum())
        if inside:
            histogram.append((least, 2 * least - 1, inside))
        least *= 2
    return Info(n, len(image_set.identities), dict(sizes), unreadable, histogram)
