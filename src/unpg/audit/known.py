"""Matches that are known to be there, and which of them an audit found: its recall."""

import os
from pathlib import Path
from typing import NamedTuple

from unpg.audit.audit import Audit
from unpg.audit.identity_matches import compare_identities
from unpg.errors import DataError

__all__ = ["Known", "KnownMatch", "judge_known", "read_known"]


class Known(NamedTuple):
    """One line of the list."""

    identity_a: str
    identity_b: str
    group: str
    """The first word of the third column, or empty."""
    line: int


class KnownMatch(NamedTuple):
    """A known match, and what the audit saw of it. The fields are the columns of ``known.csv``."""

    identity_a: str
    identity_b: str
    group: str
    found: bool
    similarity: float
    """Cosine of the centers."""
    images_a: int
    images_b: int
    best_similarity: float
    """Cosine of the most alike pair of images."""
    best_image_a: str
    best_image_b: str


def read_known(path: str | os.PathLike[str]) -> list[Known]:
    """The lines of a table with tabs: two identities, and optionally a third cell, by whose first word (how one came to
    know, say) recall is counted.

    The first line names the columns; blank lines and lines that start with ``#`` are comments.

    Raises:
        DataError: The file cannot be read, has no line of data, or a line has fewer than two names.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list of known matches {path} cannot be read: {error}.") from error
    found = []
    header = True
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if header:
            header = False
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) < 2 or not cells[0] or not cells[1]:
            raise DataError(
                f"{path}, line {number}: expected <identity> <tab> <identity> [<tab> <group>]; got {line!r}."
            )
        group = cells[2].split()[0] if len(cells) > 2 and cells[2] else ""
        found.append(Known(cells[0], cells[1], group, number))
    if not found:
        raise DataError(f"The list of known matches {path} has no line below its header.")
    return found


def judge_known(found: Audit, known: list[Known], source: str | os.PathLike[str]) -> list[KnownMatch]:
    """Each known match: whether the audit has it, and how alike the two are.

    Args:
        found: An audit; the second identity is one of the set it was compared against, or of the set itself.
        known: What to look for.
        source: The list's file, for messages.

    Raises:
        DataError: An identity that the set does not have; names the line.
    """
    a, b = found.side, found.against or found.side
    pairs = {(m.identity_a, m.identity_b) for m in (found.split if found.against is None else found.shared)}
    places = [{name: i for i, name in enumerate(side.identities)} for side in (a, b)]
    judged = []
    for entry in known:
        for name, side, place in ((entry.identity_a, a, places[0]), (entry.identity_b, b, places[1])):
            if name not in place:
                raise DataError(f"{source}, line {entry.line}: {side.name} has no readable image of {name!r}.")
        seen = compare_identities(
            a, places[0][entry.identity_a], b, places[1][entry.identity_b], found.limits.match.value
        )
        there = (entry.identity_a, entry.identity_b) in pairs
        if found.against is None:
            there = there or (entry.identity_b, entry.identity_a) in pairs
        judged.append(
            KnownMatch(
                entry.identity_a,
                entry.identity_b,
                entry.group,
                there,
                seen.similarity,
                seen.images_a,
                seen.images_b,
                seen.best_similarity,
                seen.best_image_a,
                seen.best_image_b,
            )
        )
    return judged
