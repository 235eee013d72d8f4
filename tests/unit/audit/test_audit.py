import numpy as np
import pytest
from made_people import LIMITS, People

from unpg.audit import Limits, Side, Threshold, audit
from unpg.data import ArraySet
from unpg.embed import Embeddings
from unpg.errors import ConfigError, DataError, ShapeError


def test_a_sound_set_has_no_finding(sound):
    found = audit(sound.side(), LIMITS)
    assert found.findings == 0
    assert (found.label_noise, found.split, found.duplicates, found.shared) == ([], [], [], [])


def test_a_flipped_label_is_found_and_nothing_else(sound):
    sound.image("p3", "p7", name="wrong")
    found = audit(sound.side(), LIMITS)
    assert found.findings == 1
    (noise,) = found.label_noise
    assert (noise.image, noise.identity, noise.verdict, noise.nearest_identity) == ("wrong", "p7", "another", "p3")
    assert noise.images_of_identity == 6
    assert noise.nearest_image.startswith("p3/")
    side = sound.side()
    units = side.units.astype(np.float64)
    own = units[side.of(side.identities.index("p7"))][[n != "wrong" for n in side.names if n[:2] in ("p7", "wr")]]
    center = units[side.of(side.identities.index("p3"))].sum(0)
    wrong = units[side.names.index("wrong")]
    assert noise.own_similarity == pytest.approx(wrong @ own.sum(0) / np.linalg.norm(own.sum(0)), abs=1e-6)
    assert noise.nearest_similarity == pytest.approx(wrong @ center / np.linalg.norm(center), abs=1e-6)


def test_a_stranger_is_near_nobody(sound):
    sound.image("p40", "p7", name="stranger")
    (noise,) = audit(sound.side(), LIMITS).label_noise
    assert (noise.image, noise.verdict) == ("stranger", "nobody")
    assert noise.nearest_similarity < 0.6


def test_an_image_that_is_only_somewhat_like_another_identity_is_near_nobody(sound):
    row = sound.image("p40", "p7", name="somewhat")
    sound.rows[row] = (0.5 * sound.directions[3] + 0.87 * sound.directions[40], *sound.rows[row][1:])
    (noise,) = audit(sound.side(), LIMITS).label_noise
    assert (noise.image, noise.verdict, noise.nearest_identity) == ("somewhat", "nobody", "p3")
    assert 0.3 < noise.nearest_similarity < 0.6


def test_of_two_images_that_do_not_fit_both_are_told(sound):
    sound.image("p20", "new")
    sound.image("p21", "new")
    assert {n.image for n in audit(sound.side(), LIMITS).label_noise} == {"new/0", "new/1"}


def test_a_split_identity_is_found_and_nothing_else(sound):
    for _ in range(3):
        sound.image("p3", "again")
    found = audit(sound.side(), LIMITS)
    assert found.findings == 1
    (match,) = found.split
    assert (match.identity_a, match.identity_b, match.images_a, match.images_b) == ("again", "p3", 3, 5)
    side = sound.side()
    a, b = (side.units[side.of(side.identities.index(who))].astype(np.float64) for who in ("again", "p3"))
    cosines = a @ b.T
    assert match.best_similarity == pytest.approx(cosines.max(), abs=1e-6)
    assert match.matching_pairs == (cosines >= 0.6).sum()
    one, other = np.unravel_index(cosines.argmax(), cosines.shape)
    assert (match.best_image_a, match.best_image_b) == (f"again/{one}", f"p3/{other}")
    centers = [rows.sum(0) / np.linalg.norm(rows.sum(0)) for rows in (a, b)]
    assert match.similarity == pytest.approx(centers[0] @ centers[1], abs=1e-6)


def test_one_wrong_image_does_not_make_two_identities_one_person(sound):
    sound.image("p3", "p7")
    assert audit(sound.side(), LIMITS).split == []


def test_a_picture_twice_is_found_within_and_across_identities(sound):
    sound.image("p2", like=10, name="copy")  # row 10 is p2/0
    sound.image("p2", "p5", like=11, name="copy elsewhere")
    found = audit(sound.side(), LIMITS)
    told = [(d.image_a, d.image_b, d.where, d.mirrored) for d in found.duplicates]
    assert told == [("copy", "p2/0", "identity", False), ("copy elsewhere", "p2/1", "set", False)]
    assert all(d.correlation == 1.0 and d.similarity == pytest.approx(1) for d in found.duplicates)
    assert [n.image for n in found.label_noise] == ["copy elsewhere"]
    assert found.split == []


@pytest.mark.parametrize(
    ("change", "is_one", "mirrored"),
    [
        (lambda p: p[:, ::-1], True, True),
        (lambda p: (p * 0.7 + 20).astype(np.uint8), True, False),
        (lambda p: np.repeat(np.repeat(p, 2, 0), 2, 1)[:16, :16], False, False),
        (lambda p: 255 - p, False, False),
    ],
)
def test_pixels_decide_what_is_one_picture(sound, change, is_one, mirrored):
    copy = sound.image("p2", like=10, name="copy")
    vector, pixels, *rest = sound.rows[copy]
    sound.rows[copy] = (vector, np.ascontiguousarray(change(pixels)), *rest)
    found = audit(sound.side(), LIMITS).duplicates
    assert [(d.image_a, d.image_b, d.mirrored) for d in found] == ([("copy", "p2/0", mirrored)] if is_one else [])


def test_pictures_of_one_shade_are_one_picture_only_with_each_other(sound):
    for name, value in (("black", 0), ("white", 255), ("noise", None)):
        row = sound.image("p2", like=10, name=name)
        vector, pixels, *rest = sound.rows[row]
        sound.rows[row] = (vector, pixels if value is None else np.full_like(pixels, value), *rest)
    told = {(d.image_a, d.image_b) for d in audit(sound.side(), LIMITS).duplicates}
    assert told == {("black", "white"), ("noise", "p2/0")}


def test_an_identity_in_both_sets_is_found_and_nothing_else(sound):
    other = People(seed=1)
    other.directions = sound.directions
    for person in range(30, 40):
        other.image(f"p{person}")
    for _ in range(3):
        other.image("p4", "known here too")
    found = audit(sound.side(), LIMITS, other.side("other"))
    assert found.findings == 1
    (match,) = found.shared
    assert (match.identity_a, match.identity_b, match.images_a, match.images_b) == ("p4", "known here too", 5, 3)
    assert match.best_image_a.startswith("p4/")
    assert match.best_image_b.startswith("known here too/")


def test_a_picture_in_both_sets_is_found(sound):
    other = People(seed=1)
    other.rows = [sound.rows[20]]
    found = audit(sound.side(), LIMITS, other.side("other"))
    assert [(d.image_a, d.image_b, d.where) for d in found.duplicates] == [("p4/0", "p4/0", "against")]
    assert [(m.identity_a, m.identity_b) for m in found.shared] == [("p4", "p4")]


def test_findings_do_not_depend_on_the_order_of_a_set(sound):
    sound.image("p3", "p7", name="wrong")
    sound.image("p40", "p6", name="stranger")
    sound.image("p2", like=10, name="copy")
    for _ in range(3):
        sound.image("p5", "again")
    first = audit(sound.side(), LIMITS, sound.side("other"))
    assert len(first.label_noise) == 2
    assert len(first.split) == len(first.duplicates[:1]) == 1
    rng = np.random.default_rng(1)
    for _ in range(3):
        a, b = (sound.side(n, order=rng.permutation(len(sound.rows))) for n in ("set", "other"))
        again = audit(a, LIMITS, b)
        for kind in ("label_noise", "split", "duplicates", "shared"):
            assert getattr(again, kind) == getattr(first, kind), kind


def test_sets_that_hardly_are_sets():
    assert audit(People().side(), LIMITS).findings == 0
    one = People()
    for _ in range(4):
        one.image("p0")
    assert audit(one.side(), LIMITS).findings == 0
    assert audit(one.side(), LIMITS, People().side("empty")).findings == 0
    assert audit(People().side(), LIMITS, one.side()).findings == 0
    one.image("p9", "p0", name="odd")
    (noise,) = audit(one.side(), LIMITS).label_noise
    assert (noise.image, noise.verdict, noise.nearest_identity) == ("odd", "nobody", "")
    assert noise.nearest_similarity is None
    singles = People()
    for person in range(6):
        singles.image(f"p{person}")
    assert audit(singles.side(), LIMITS).findings == 0


def test_an_unreadable_image_is_no_finding(sound):
    side = sound.side(unreadable={"p3/2", *(f"p4/{i}" for i in range(5))})
    assert len(side) == 44
    assert "p4" not in side.identities
    assert audit(side, LIMITS).findings == 0


def test_a_zero_embedding_is_near_nobody(sound):
    row = sound.image("p3", name="zero")
    side = sound.side()
    vectors = side.embeddings.vectors.copy()
    vectors[row] = 0
    side = Side("set", side.images, Embeddings(vectors, *(getattr(side.embeddings, f) for f in FIELDS)))
    (noise,) = audit(side, LIMITS).label_noise
    assert (noise.image, noise.own_similarity, noise.verdict) == ("zero", 0.0, "nobody")


FIELDS = ("norms", "labels", "names", "readable")


def test_a_collapsed_model_is_told_and_not_held(sound, monkeypatch):
    from unpg.audit import duplicates

    scan = duplicates.scan
    monkeypatch.setattr(duplicates, "scan", lambda *a, **k: scan(*a, **k, max_pairs=100))
    side = sound.side()
    vectors = np.ones_like(side.embeddings.vectors) / 8
    flat = Side("set", side.images, Embeddings(vectors, *(getattr(side.embeddings, f) for f in FIELDS)))
    with pytest.raises(DataError, match="More than 100 pairs have a similarity of 0.8000"):
        audit(flat, LIMITS)


def test_bad_input_is_refused(sound):
    side = sound.side()
    with pytest.raises(ShapeError, match="50 embeddings for 1 images"):
        Side("set", ArraySet(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1, int), ["a"]), side.embeddings)
    with pytest.raises(ConfigError, match="must be less alike than a match"):
        Limits(Threshold(0.3), Threshold(0.6))
    with pytest.raises(ConfigError, match=r"Limits.near .* got 1.5"):
        Limits(Threshold(0.6), Threshold(0.3), near=1.5)


def test_progress_is_told(sound):
    told = []
    audit(sound.side(), LIMITS, sound.side("other"), progress=lambda *what: told.append(what))
    assert told[-1] == ("images against other", 50, 50)
    assert {what for what, *_ in told} == {"identities", "images", "identities against other", "images against other"}
