"""What is in an image set: counts, images per identity as a histogram, and how long an epoch of it will take."""

import time
from collections import Counter
from typing import NamedTuple

import numpy as np

from unpg.data.bins import BinImages
from unpg.data.content import content
from unpg.data.decode import decode
from unpg.data.image_set import ImageSet, SizeError
from unpg.errors import ConfigError, DataError

__all__ = ["Info", "inspect_set"]

_SAMPLE = 64  # images decoded for their size
_SIZES = 3  # sizes that are named
_BAR = 40  # characters of the longest bar
_TIMED = 0.3  # seconds of decoding that are timed at least
_EVEN = 2.0  # difference of two channels' means, of 255, that says nothing


class Info(NamedTuple):
    """Counts of a set."""

    images: int
    identities: int
    sizes: dict[tuple[int, int], int]
    """(height, width) -> how many of the sampled images, the most frequent first."""
    unreadable: int
    """Sampled images that cannot be decoded."""
    histogram: list[tuple[int, int, int]]
    """(least, most, identities): how many identities have that many images; ranges double."""
    channels: tuple[float, float, float]
    """Means of red, green and blue over the sample, 0 to 255."""
    rate: float
    """Images that one process of this machine reads and decodes in a second, with the files in memory; 0 if none."""
    workers: int
    """Processes that the estimate counts with."""
    pairs: tuple[int, int] | None
    """Of a file of pairs: how many, and how many genuine ones. It does not say whom its images show."""

    def channel_hint(self) -> str:
        """What the colors say of the order of the channels: faces are redder than blue."""
        red, green, blue = self.channels
        means = f"means {red:.0f}, {green:.0f}, {blue:.0f}"
        if max(self.channels) - min(self.channels) < 0.01 and self.rate:
            return f"channels are decoded as RGB; all three are equal ({means}): grey"
        if red - blue > _EVEN:
            return f"channels are decoded as RGB; red is above blue ({means}), as in photographs of faces"
        if blue - red > _EVEN:
            return (
                f"channels are decoded as RGB; blue is above red ({means}), unlike photographs of faces: the files may "
                "have been written with red and blue exchanged (BGR). Look at some"
            )
        return f"channels are decoded as RGB; red and blue are alike ({means}), which tells nothing of their order"

    def text(self) -> str:
        """Lines for the screen."""
        mixed = len(self.sizes) > 1
        named = list(self.sizes.items())[:_SIZES]
        sizes = ", ".join(f"{height} x {width}" + f" ({count})" * mixed for (height, width), count in named)
        if len(self.sizes) > _SIZES:
            sizes += f", {len(self.sizes) - _SIZES} more sizes"
        what = f"of {self.identities:,} identities"
        if self.pairs is not None:
            what = (
                f"in {self.pairs[0]:,} pairs, {self.pairs[1]:,} of them genuine; the file does not say whom they show"
            )
        lines = [
            f"{self.images:,} images {what}",
            f"{sizes or 'no readable image'}: height x width in pixels of {sum(self.sizes.values())} images spread "
            f"over the set; {self.unreadable} others could not be read",
            self.channel_hint(),
        ]
        if mixed:
            lines.insert(2, "images of one set must have one size: align the faces to one template first")
        if self.rate:
            seconds = self.images / self.rate / self.workers
            many = "1 process" if self.workers == 1 else f"{self.workers} processes"
            lines.append(
                f"an epoch takes about {_duration(seconds)} to read and decode in {many}: an estimate from "
                f"{self.rate:,.0f} images/s of one process, measured on the sample with the files in memory"
            )
        if self.pairs is not None:
            return "\n".join(lines)
        lines.append("images per identity:")
        longest = max((count for *_, count in self.histogram), default=1)
        for least, most, count in self.histogram:
            label = str(least) if least == most else f"{least}-{most}"
            lines.append(f"  {label:>13} {count:>9,} {'#' * -(-_BAR * count // longest)}")
        return "\n".join(lines)


def inspect_set(image_set: ImageSet, workers: int = 1) -> Info:
    """Count; decodes up to 64 images, spread evenly, for sizes, colors and speed. ``check`` decodes all.

    Args:
        image_set: The set.
        workers: Processes that the estimated time of an epoch counts with.

    Raises:
        ConfigError: ``workers`` below 1.
    """
    if workers < 1:
        raise ConfigError(f"workers must be >= 1, got {workers}: the processes that the estimate counts with.")
    sizes: Counter[tuple[int, int]] = Counter()
    means, readable = np.zeros(3), []
    n = len(image_set)
    sample = np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(int)).tolist()
    for i in sample:
        try:
            try:
                image = image_set.read(i)
                readable.append(i)
            except SizeError:
                image = decode(content(image_set, i), name=image_set.name(i))
        except DataError:
            continue
        sizes[image.shape[0], image.shape[1]] += 1
        means += image.mean(axis=(0, 1))
    counts = np.bincount(image_set.labels, minlength=len(image_set.identities))
    histogram, least = [], 1
    while least <= counts.max(initial=0):
        inside = int(((counts >= least) & (counts < 2 * least)).sum())
        if inside:
            histogram.append((least, 2 * least - 1, inside))
        least *= 2
    red, green, blue = (means / max(sizes.total(), 1)).tolist()
    rate = _rate(image_set, readable)
    unreadable = len(sample) - sizes.total()
    common = dict(sizes.most_common())
    pairs = image_set.of_pairs if isinstance(image_set, BinImages) else None
    return Info(n, len(image_set.identities), common, unreadable, histogram, (red, green, blue), rate, workers, pairs)


def _rate(image_set: ImageSet, readable: list[int]) -> float:
    """Images read in a second; ``readable`` has been read before, so the disk plays no part."""
    done, begin = 0, time.perf_counter()
    while readable and time.perf_counter() - begin < _TIMED:
        for i in readable:
            image_set.read(i)
        done += len(readable)
    return done / (time.perf_counter() - begin) if done else 0.0


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds:.2f} s" if seconds >= 0.01 else "0.01 s or less"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
