"""Whether ``results.json`` holds what tables and figures are made from, before they are."""

from collections.abc import Mapping, Sequence
from typing import Any

from unpg.errors import DataError

__all__ = ["check_results"]

_POINT = ("target", "value", "reliable", "reason")
_NEEDED: Mapping[str, Sequence[str]] = {
    "intervals": ("figures", "refused", "confidence", "method", "replicates", "units", "unit", "seed", "notes"),
    "at_threshold": ("chosen", "threshold", "intervals"),
}
_OF_GROUPS = ("groups", "common_threshold", "target", "ratios")
_GROUP = (
    "genuine",
    "impostor",
    "accuracy",
    "eer",
    "tar_at_far_own",
    "tar_at_far_common",
    "fmr_common",
    "fnmr_common",
)
_GALLERY = ("subjects", "probes", "mated", "rank", "tpir_at_fpir", "tar_at_far")


def check_results(file: object, results: Mapping[str, Any]) -> None:
    """Raise unless each benchmark of ``results`` has the entries that its kind must have.

    Raises:
        DataError: One lacks an entry, or an entry is no mapping or list. Names the file, the benchmark and the entry.
    """
    for benchmark, figures in results.items():
        try:
            _check(figures)
        except _WrongError as wrong:
            raise DataError(f"{file}: of {benchmark!r} {wrong}. Run `unpg evaluate` again.") from None


class _WrongError(Exception):
    """What is wrong with an entry, in words."""


def _check(figures: Any) -> None:
    _mapping("the results", figures, ())
    metrics = _mapping("metrics", figures.get("metrics", {}), ())
    for name, value in metrics.items():
        _number(f"metrics.{name}", value, none=True)
    _points("", figures)
    for key, needed in _NEEDED.items():
        if figures.get(key) is not None:
            _mapping(key, figures[key], needed)
    if figures.get("at_threshold") is not None:
        searched = figures.get("protocol") == "identification"
        rates = ("fpir", "fnir", "tpir") if searched else ("fmr", "fnmr", "accuracy")
        at = _mapping("at_threshold", figures["at_threshold"], rates)
        for name in rates:
            _number(f"at_threshold.{name}", at[name], none=name == "fpir")
    for name, interval in _intervals(figures).items():
        ends = _mapping(f"the interval of {name}", interval, ("low", "high", "method", "reason"))
        for end in ("low", "high"):
            _number(f"the interval of {name}", ends[end], none=True)
    for name, gallery in _mapping("per_gallery", figures.get("per_gallery") or {}, ()).items():
        _points(f"gallery {name}: ", _mapping(f"gallery {name}", gallery, _GALLERY))
    for pair in _list("hardest", figures.get("hardest") or []):
        if not isinstance(pair, list) or len(pair) != 4:
            raise _WrongError(f"an entry of hardest is {pair!r}, not [image, image, cosine, same]")
        _number("a cosine of hardest", pair[2])
    if figures.get("protocol") == "groups":
        _check_groups(_mapping("the results", figures, _OF_GROUPS))


def _check_groups(figures: Mapping[str, Any]) -> None:
    _mapping("ratios", figures["ratios"], ())
    _number("target", figures["target"])
    groups = _mapping("groups", figures["groups"], ())
    if not groups:
        raise _WrongError("groups are none")
    for name, rates in groups.items():
        _mapping(f"group {name}", rates, _GROUP)
        _mapping(f"tar_at_far_own of group {name}", rates["tar_at_far_own"], _POINT)
        for rate in ("genuine", "impostor", "accuracy", "eer", "tar_at_far_common", "fmr_common", "fnmr_common"):
            _number(f"{rate} of group {name}", rates[rate])


def _points(where: str, figures: Mapping[str, Any]) -> None:
    for key in ("tar_at_far", "tpir_at_fpir"):
        for point in _list(f"{where}{key}", figures.get(key, [])):
            _mapping(f"{where}a point of {key}", point, _POINT)
            _number(f"{where}a target of {key}", point["target"])
            _number(f"{where}a value of {key}", point["value"], none=True)


def _intervals(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping("intervals.figures", (figures.get("intervals") or {}).get("figures") or {}, ())


def _mapping(name: str, found: Any, needed: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise _WrongError(f"{name} must be a mapping, but is {type(found).__name__}")
    lacking = [key for key in needed if key not in found]
    if lacking:
        raise _WrongError(f"{name} lack{'' if name == 'the results' else 's'} {', '.join(lacking)}")
    return found


def _list(name: str, found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise _WrongError(f"{name} must be a list, but is {type(found).__name__}")
    return found


def _number(name: str, found: Any, *, none: bool = False) -> None:
    if not (isinstance(found, int | float) and not isinstance(found, bool)) and not (none and found is None):
        raise _WrongError(f"{name} must be a number, but is {found!r}")
