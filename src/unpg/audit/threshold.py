"""The similarity from which on two images count as one person's, set by the share of strangers that reach it.

The strangers are all pairs of images of different identities in a labelled set. Errors in that set's own labels
(one person under two names) are among them and can only raise the threshold: the audit then finds less, not more.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.errors import ConfigError, DataError
from unpg.evaluate.allpairs import PairCounts
from unpg.evaluate.curves import RELIABLE_FALSE_ACCEPTS, target_name

__all__ = ["Threshold", "require_resolved", "threshold_at"]


@dataclass(frozen=True)
class Threshold:
    """A similarity (cosine), and where it comes from.

    Attributes:
        value: Pairs with this similarity or more are accepted.
        fmr: The share of strangers' pairs that must not be exceeded; None if the value was given as it is.
        strangers: Pairs of different identities that were compared.
        accepted: How many of them reach the value.
        source: The set that they are from.
    """

    value: float
    fmr: float | None = None
    strangers: int = 0
    accepted: int = 0
    source: str = ""

    def text(self) -> str:
        """One sentence without a full stop."""
        if self.fmr is None:
            return f"cosine {self.value:.4f}, as given"
        few = "" if self.reliable else f"; fewer than {RELIABLE_FALSE_ACCEPTS} are allowed, so it may be far off"
        return (
            f"cosine {self.value:.4f}, reached by {self.accepted:,} of the {self.strangers:,} pairs of different "
            f"identities in {self.source} (FMR {target_name(self.fmr)} or less{few})"
        )

    @property
    def reliable(self) -> bool:
        """Whether thirty false accepts are expected; True for a value that was given."""
        return self.fmr is None or RELIABLE_FALSE_ACCEPTS / self.strangers <= self.fmr

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def threshold_at(counts: PairCounts, fmr: float, source: str) -> Threshold:
    """The smallest similarity that no more than the share ``fmr`` of the pairs of different identities reach.

    Args:
        counts: Of the set that says how alike strangers are; see :func:`unpg.evaluate.allpairs.count_pairs`.
        fmr: False match rate, in (0, 1).
        source: What to call that set.

    Raises:
        ConfigError: ``fmr`` is out of range.
        DataError: Fewer pairs than one false accept needs, or so many equal ones at the top that no similarity is
            high enough: the embeddings have collapsed.
    """
    strangers = int(counts.impostor.sum())
    require_resolved(strangers, fmr, source)
    reach: NDArray[np.int64] = np.cumsum(counts.impostor[::-1])[::-1]
    allowed = np.flatnonzero(reach / strangers <= fmr)
    if not len(allowed):
        raise DataError(
            f"{int(reach[-1]):,} of the {strangers:,} pairs of different identities in {source} have cosine 1: no "
            f"threshold has FMR {target_name(fmr)}. The model gives different people one embedding."
        )
    at = int(allowed[0])
    return Threshold(float(counts.values[at]), fmr, strangers, int(reach[at]), source)


def require_resolved(strangers: int, fmr: float, source: str) -> None:
    """Raise unless so many pairs of different identities can tell an FMR.

    Raises:
        ConfigError: ``fmr`` is out of range.
        DataError: There are too few.
    """
    if not 0 < fmr < 1:
        raise ConfigError(f"An FMR must lie in (0, 1); got {fmr}. For one in a million write 1e-6.")
    if not strangers or 1 / strangers > fmr:
        resolves = f", which resolves FMR {1 / strangers:.1e} and above" if strangers else ""
        raise DataError(
            f"{source} has {strangers:,} pairs of different identities{resolves}: FMR {target_name(fmr)} cannot be set "
            "from it. Ask for a larger FMR, take the pairs of a larger set (--calibrate), or give the threshold itself."
        )
