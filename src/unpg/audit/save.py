"""An audit as files: a CSV per kind of finding, and how it was done as JSON."""

import csv
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from unpg.audit.audit import Audit
from unpg.audit.findings import IdentityMatch, LabelNoise, NearDuplicate
from unpg.audit.known import KnownMatch

__all__ = ["FILES", "save_audit"]

FILES: dict[str, type[Any]] = {
    "label_noise": LabelNoise,
    "split_identities": IdentityMatch,
    "near_duplicates": NearDuplicate,
    "shared_identities": IdentityMatch,
    "known": KnownMatch,
}
"""Name of each CSV file, and the class whose fields are its columns."""


def save_audit(
    folder: str | os.PathLike[str],
    found: Audit,
    known: list[KnownMatch] | None = None,
    about: dict[str, Any] | None = None,
) -> list[Path]:
    """Write ``label_noise.csv``, ``split_identities.csv``, ``near_duplicates.csv`` and ``audit.json`` to ``folder``,
    ``shared_identities.csv`` if there was another set, and ``known.csv`` if there was a list.

    A file without findings has the header alone. Cosines have six digits. ``audit.json`` has the sets, their counts,
    the limits and where they come from, and the number of findings.

    Args:
        folder: Made if it is not there; files of these names are replaced, and those that are not written removed.
        found: The audit.
        known: See :func:`unpg.audit.known.judge_known`.
        about: What else to say in ``audit.json``, plain JSON values: the model, say.

    Returns:
        The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, Iterable[Any]] = {
        "label_noise": found.label_noise,
        "split_identities": found.split,
        "near_duplicates": found.duplicates,
    }
    if found.against is not None:
        tables["shared_identities"] = found.shared
    if known is not None:
        tables["known"] = known
    written = []
    for name, rows in tables.items():
        path = folder / f"{name}.csv"
        with _replacing(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(FILES[name]._fields)
            writer.writerows([_cell(value) for value in row] for row in rows)
        written.append(path)
    for name in FILES.keys() - tables.keys():  # of an earlier audit
        (folder / f"{name}.csv").unlink(missing_ok=True)
    path = folder / "audit.json"
    with _replacing(path) as file:
        file.write(json.dumps(_summary(found) | (about or {}), indent=1) + "\n")
    return [*written, path]


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A new file, which takes the place of ``path`` when it is whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # Names of files may hold bytes that are no UTF-8; they go out as they came in.
        with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6f}"
    return "" if value is None else value


def _summary(found: Audit) -> dict[str, Any]:
    sides = {"set": found.side} | ({"against": found.against} if found.against is not None else {})
    summary: dict[str, Any] = {
        role: {
            "name": side.name,
            "images": len(side),
            "identities": len(side.identities),
            "unreadable": side.embeddings.unreadable,
        }
        for role, side in sides.items()
    }
    limits = found.limits
    summary["limits"] = {
        "match": limits.match.to_dict(),
        "far": limits.far.to_dict(),
        "near": limits.near,
        "picture": limits.picture,
    }
    summary["findings"] = {
        "label_noise": len(found.label_noise),
        "split_identities": len(found.split),
        "near_duplicates": len(found.duplicates),
        "shared_identities": len(found.shared),
    }
    return summary
