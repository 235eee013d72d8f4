"""The pictures of a diagnosis, with captions that say in figures what one sees."""

from collections.abc import Mapping
from typing import Any

from unpg.report.figures import Drawing, mismatch

__all__ = ["mismatches"]


def mismatches(diagnosis: Mapping[str, Any], name: str) -> list[Drawing]:
    """One picture for each set of ``diagnosis.json`` of the model ``name``."""
    return [mismatch(one, _caption(one, name)) for one in diagnosis["sets"]]


def _caption(one: Mapping[str, Any], name: str) -> str:
    wdfs = one["wdfs"]
    of = f"{one['images']:,} images" + (f" of {one['identities']:,} people" if one["identities"] else "")
    said = f"{name}, {one['name']} ({of}): similarities of all pairs"
    sampling = one.get("sampling")
    if sampling:
        said += f", and the negatives that {sampling['batches']:,} batches of {sampling['batch_size']:,} show"
    said += (
        f". The lines mark the robust inf Sᵖ ({wdfs['robust_inf_positive']:.2f}: 0.1 % of the positives lie below) and "
        f"the robust sup Sⁿ ({wdfs['robust_sup_negative']:.2f}: 0.1 % of the negatives lie above, in the shade). The "
        f"space would be well-discriminative with inf Sᵖ on the right of sup Sⁿ."
    )
    if one.get("flipped"):
        said += f" {one['flipped']:,} labels were changed on purpose; the dotted curve goes by the true ones."
    dense = [f"{s['name']} {s['tail_density']:.2f}" for s in one["samples"] if _drawn(s["name"], sampling)]
    if dense:
        said += f" How often each sample draws from the shade, 1 being right: {', '.join(dense)}."
    return said


def _drawn(name: str, sampling: Mapping[str, Any] | None) -> bool:
    own = (sampling or {}).get("drawn")
    return name in ("CLPG", "MLPG", f"UNPG, {own}", f"MLPG, {own}")
