"""An audit as one HTML page with thumbnails, for the eyes of whoever owns the pictures.

The thumbnails are inside the page, so it is as private as the set: nothing else is read or loaded, and the page
forbids its reader's browser to ask the network for anything.
"""

import base64
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from unpg.audit import Audit, IdentityMatch, LabelNoise, NearDuplicate, Side
from unpg.errors import DataError

__all__ = ["write_audit_page"]

_THUMBNAIL = 96  # pixels of the longer side
_EXAMPLES = 4  # images shown of one identity


@dataclass(frozen=True)
class _Shown:
    """A thumbnail: JPEG as base64, empty if the image can no longer be read; and its name."""

    data: str
    name: str


@dataclass(frozen=True)
class _Row:
    """A finding: what is said of it, and groups of images with a heading each."""

    said: str
    groups: tuple[tuple[str, tuple[_Shown, ...]], ...]


@dataclass(frozen=True)
class _Section:
    id: str
    title: str
    explained: str
    file: str
    total: int
    rows: tuple[_Row, ...]


def write_audit_page(
    out: str | os.PathLike[str], found: Audit, *, title: str | None = None, model: str = "", most: int = 200
) -> Path:
    """Write the page to ``out``; it needs no other file and no network.

    Args:
        out: The page.
        found: What to show.
        title: Of the page; default: from the set's name.
        model: What to call the model.
        most: Findings of one kind that are shown; the CSV files have them all.
    """
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template("audit_page.html.j2").render(
        title=title or f"Audit of {found.side.name}",
        css="".join((here / name).read_text(encoding="utf-8") for name in ("page.css", "audit_page.css")),
        sides=[side for side in (found.side, found.against) if side is not None],
        limits=found.limits,
        model=model,
        sections=_sections(found, most),
    )
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file name may hold bytes that are no text; the page shows them escaped.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def _sections(found: Audit, most: int) -> list[_Section]:
    a, b = _Images(found.side), _Images(found.against or found.side)
    match, far = found.limits.match.value, found.limits.far.value
    sections = [
        _Section(
            "label-noise",
            "Likely wrong labels",
            f"Images whose cosine to the center of their identity's other images is below {far:.4f}, as strangers' "
            f"are. Near another identity: {match:.4f} or more to its center. The others are near nobody: another "
            "person who is not in the set, a bad crop, or a hard pose.",
            "label_noise.csv",
            len(found.label_noise),
            tuple(_noise(finding, a) for finding in found.label_noise[:most]),
        ),
        _Section(
            "split-identities",
            "Identities that look like one person",
            f"Two identities of the set whose centers have a cosine of {match:.4f} or more.",
            "split_identities.csv",
            len(found.split),
            tuple(_match(finding, a, a) for finding in found.split[:most]),
        ),
        _Section(
            "near-duplicates",
            "The same picture twice",
            f"Embeddings with a cosine of {found.limits.near:.2f} or more, and grey pixels with a correlation of "
            f"{found.limits.picture:.2f} or more.",
            "near_duplicates.csv",
            len(found.duplicates),
            tuple(_duplicate(finding, a, b) for finding in found.duplicates[:most]),
        ),
    ]
    if found.against is not None:
        sections.append(
            _Section(
                "shared-identities",
                f"Identities shared with {found.against.name}",
                f"An identity of each set; their centers have a cosine of {match:.4f} or more.",
                "shared_identities.csv",
                len(found.shared),
                tuple(_match(finding, a, b) for finding in found.shared[:most]),
            )
        )
    return sections


class _Images:
    """Thumbnails of a side by the names of its images."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._place = {name: i for i, name in enumerate(side.names)}
        self._identity = {name: i for i, name in enumerate(side.identities)}
        self._made: dict[str, str] = {}

    def show(self, name: str) -> _Shown:
        if name not in self._made:
            self._made[name] = self._thumbnail(name)
        return _Shown(self._made[name], name)

    def examples(self, identity: str, first: Iterable[str] = (), without: str = "") -> tuple[_Shown, ...]:
        """Some images of an identity, those called ``first`` before others."""
        of = [self.side.names[int(i)] for i in self.side.of(self._identity[identity])]
        chosen = [name for name in dict.fromkeys([*first, *of]) if name != without]
        return tuple(self.show(name) for name in chosen[:_EXAMPLES])

    def _thumbnail(self, name: str) -> str:
        try:
            image = Image.fromarray(self.side.images.read(int(self.side.rows[self._place[name]])))
        except DataError:
            return ""
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=80)
        return base64.b64encode(file.getvalue()).decode("ascii")


def _noise(finding: LabelNoise, images: _Images) -> _Row:
    said = f"{finding.own_similarity:.3f} to the other images of its identity; near "
    groups = [
        ("the image", (images.show(finding.image),)),
        (f"its identity: {finding.identity}", images.examples(finding.identity, without=finding.image)),
    ]
    if finding.nearest_identity:
        groups.append(
            (f"nearest: {finding.nearest_identity}", images.examples(finding.nearest_identity, [finding.nearest_image]))
        )
    if finding.verdict == "another":
        said += f"another: {finding.nearest_similarity:.3f} to {finding.nearest_identity}"
    elif finding.nearest_similarity is not None:
        said += f"nobody: {finding.nearest_similarity:.3f} to the nearest, {finding.nearest_identity}"
    else:
        said += "nobody"
    return _Row(said, tuple(groups))


def _match(finding: IdentityMatch, a: _Images, b: _Images) -> _Row:
    return _Row(
        f"centers {finding.similarity:.3f}; best pair {finding.best_similarity:.3f}; {finding.matching_pairs:,} of "
        f"{finding.images_a * finding.images_b:,} pairs match",
        (
            (f"{finding.identity_a}: {finding.images_a:,}", a.examples(finding.identity_a, [finding.best_image_a])),
            (f"{finding.identity_b}: {finding.images_b:,}", b.examples(finding.identity_b, [finding.best_image_b])),
        ),
    )


def _duplicate(finding: NearDuplicate, a: _Images, b: _Images) -> _Row:
    where = {
        "identity": "in one identity",
        "set": "in two identities of the set",
        "against": f"in the set and in {b.side.name}",
    }[finding.where]
    turned = ", mirrored" if finding.mirrored else ""
    there = b if finding.where == "against" else a
    return _Row(
        f"{where}{turned}; pixels {finding.correlation:.3f}, embeddings {finding.similarity:.3f}",
        (
            (finding.identity_a, (a.show(finding.image_a),)),
            (finding.identity_b, (there.show(finding.image_b),)),
        ),
    )
