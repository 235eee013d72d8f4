"""What a table of a report is, whatever it is written as: HTML, Markdown, CSV or LaTeX."""

import math
from dataclasses import dataclass
from typing import Any

from unpg.evaluate.curves import target_name

__all__ = [
    "MARK",
    "REFUSED",
    "Cell",
    "Group",
    "Table",
    "heading",
    "is_ratio",
    "number_cell",
    "rate_cell",
    "rate_text",
    "small_rate_text",
]

REFUSED, MARK = "n/r", "†"

MARKS_EXPLAINED = {
    REFUSED: f"{REFUSED}: not resolvable; the set has too few impostor pairs (or non-mated searches) for that rate.",
    MARK: f"{MARK} fewer than thirty false accepts (or false positives) expected: the value may move a lot by chance.",
}


@dataclass(frozen=True)
class Cell:
    """One entry.

    Attributes:
        text: As it is printed.
        mark: A sign after it.
        reason: Why it is marked or refused; shown on hover and below the table.
        interval: Its interval as it is printed.
        value: The number itself; rates as fractions. None for words and for what is refused.
        low: Lower end of the interval.
        high: Upper end.
    """

    text: str
    mark: str = ""
    reason: str = ""
    interval: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None


Group = tuple[str, str, tuple[tuple[Cell, ...], ...]]
"""Rows that belong together: their name, what is said of them, and the rows."""


@dataclass(frozen=True)
class Table:
    """A table with a heading per column; all rows have as many cells, the first of which is the row's heading.

    Attributes:
        title: Heading.
        columns: Headings of the columns.
        groups: Rows, usually of one benchmark each.
        notes: What must be said below.
        words: The cells hold text rather than figures.
        findings: What the table says, in sentences that stand above it.
    """

    title: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()
    words: bool = False
    findings: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Number of rows."""
        return sum(len(rows) for _, _, rows in self.groups)

    def marks(self) -> tuple[str, ...]:
        """The explanation of every sign that the table uses."""
        used = {sign for _, _, rows in self.groups for row in rows for c in row for sign in (c.text, c.mark)}
        return tuple(said for sign, said in MARKS_EXPLAINED.items() if sign in used)


HEADINGS = {
    "accuracy": "Accuracy, folds",
    "accuracy_insightface_grid": "Accuracy, insightface grid",
    "accuracy_best_threshold": "Accuracy, all-pairs best threshold",
    "auc": "AUC",
    "eer": "EER",
}

_OF_GROUPS = {"accuracy": "Accuracy", "eer": "EER", "fmr": "FMR", "fnmr": "FNMR", "tar": "TAR, own threshold"}
_RATES = {"tar@far=": "TAR at FAR", "tpir@fpir=": "TPIR at FPIR"}


def heading(figure: str, protocol: str = "") -> str:
    """A figure of ``metrics()`` as it heads a column; that of groups is a mean accuracy, whatever ``accuracy`` is else.

    >>> heading("tar@far=1e-3"), heading("rank=5"), heading("fmr/African"), heading("ratio/skewed_error")
    ('TAR at FAR 10⁻³', 'Rank 5', 'FMR, African', 'Ratio of skewed error')
    >>> heading("accuracy"), heading("accuracy", "groups")
    ('Accuracy, folds', 'Accuracy, mean of the groups')
    """
    if protocol == "groups" and figure == "accuracy":
        return "Accuracy, mean of the groups"
    if figure.endswith(" (mean - std)"):
        return f"{heading(figure.removesuffix(' (mean - std)'))}, mean − std"
    for start, said in _RATES.items():
        if figure.startswith(start):
            return f"{said} {_power_of_ten(figure.removeprefix(start))}"
    if figure.startswith("rank="):
        return f"Rank {figure.removeprefix('rank=')}"
    kind, slash, group = figure.partition("/")
    if slash and kind in _OF_GROUPS:
        return f"{_OF_GROUPS[kind]}, {group}"
    if is_ratio(figure):
        return f"Ratio of {group.upper() if group in ('fmr', 'fnmr') else group.replace('_', ' ')}"
    return HEADINGS.get(figure, figure)


def is_ratio(figure: str) -> bool:
    """The figure is a ratio of rates, not a rate."""
    return figure.startswith("ratio/")


def _power_of_ten(text: str) -> str:
    factor, _, exponent = text.partition("e")
    power = "10" + exponent.translate(str.maketrans("-+0123456789", "⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if factor == "1" else f"{factor}·{power}"


def target_heading(rate: str, target: float) -> str:
    """``TAR at FAR 10⁻³`` from ``"tar@far="`` and 0.001."""
    return heading(f"{rate}{target_name(target)}")


def rate_text(rate: float) -> str:
    """A fraction in per cent, with two decimals."""
    return f"{100 * rate:.2f}"


def small_rate_text(rate: float) -> str:
    """As :func:`rate_text`, but below 0.01 % with two digits, lest a few false matches look like none.

    >>> small_rate_text(0.98533), small_rate_text(0.0), small_rate_text(4e-6)
    ('98.53', '0.00', '0.00040')
    """
    if not 0 < rate < 1e-4:
        return rate_text(rate)
    return f"{100 * rate:.{-1 - math.floor(math.log10(rate))}f}"


def rate_cell(
    rate: float | None, interval: dict[str, Any] | None = None, *, mark: str = "", reason: str = "", spread: float = 0.0
) -> Cell:
    """A rate in per cent, empty if there is none.

    Args:
        rate: A fraction.
        interval: With ``low`` and ``high``; None without one.
        mark: See :class:`Cell`.
        reason: Likewise.
        spread: A standard deviation to print after a plus-minus sign; 0 prints none.
    """
    if rate is None:
        return Cell("", reason=reason)
    low, high = (None, None) if not interval else (interval["low"], interval["high"])
    return Cell(
        f"{small_rate_text(rate)} ± {rate_text(spread)}" if spread else small_rate_text(rate),
        mark,
        reason,
        "" if low is None or high is None else f"{small_rate_text(low)} to {small_rate_text(high)}",
        float(rate),
        low,
        high,
    )


def number_cell(value: float | None, form: str = ".3g", unit: str = "") -> Cell:
    """A number that is no rate; empty if there is none, words if it is not finite."""
    if value is None:
        return Cell("")
    if not math.isfinite(value):
        return Cell(str(value))
    return Cell(f"{value:{form}}{unit}".replace("-", "−") if value < 0 else f"{value:{form}}{unit}", value=float(value))
