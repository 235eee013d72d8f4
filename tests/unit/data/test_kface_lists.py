"""Pairs by the authors' rule, and balanced parts of the grid: counted from the outside."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unpg.data.kface import KFACE_VIEWS, KFaceViews, kface_pairs
from unpg.data.kface_lists import KFACE_LISTS, balanced_views, draw_kface_pairs
from unpg.errors import ConfigError, DataError

AXES = ("accessories", "lights", "expressions", "cameras")


def rule_holds(views, pair):
    a, b = views.at(pair.view_a), views.at(pair.view_b)
    varied = [len(getattr(views, axis)) > 1 for axis in AXES]
    return all(x != y for x, y, v in zip(a, b, varied, strict=True) if v)


@pytest.mark.parametrize("name", KFACE_LISTS)
def test_lists_of_the_authors_size_hold_the_rule(name):
    views, count = KFaceViews.parse(KFACE_LISTS[name][0]), min(KFACE_LISTS[name][1], 2000)
    pairs = draw_kface_pairs(views, 30, count, seed=3)
    assert len(pairs) == count
    assert [p.same for p in pairs] == [True] * (count // 2) + [False] * (count // 2)
    assert all((p.person_a == p.person_b) == p.same for p in pairs)
    assert all(rule_holds(views, p) for p in pairs)
    ends = {frozenset([(p.person_a, p.view_a), (p.person_b, p.view_b)]) for p in pairs}
    assert len(ends) == count, "no pair twice, in neither order"
    shown = np.bincount([p.person_a for p in pairs if p.same], minlength=30)
    assert shown.min() >= 0.5 * shown.mean()
    assert draw_kface_pairs(views, 30, count, seed=3) == pairs
    assert draw_kface_pairs(views, 30, count, seed=4) != pairs


@pytest.mark.data
def test_the_authors_own_q1_holds_the_rule_as_it_is_written_here(faces):
    file = faces / "fixtures/kface/kface.Q1.txt"
    if not file.is_file():
        pytest.skip(f"no {file}")
    ends = [[cell.split("/") for cell in line.split()[:2]] for line in file.read_text().splitlines()]
    assert len(ends) == KFACE_LISTS["Q1"][1]
    assert all(a[4] != b[4] and a[1:4] == b[1:4] for a, b in ends)
    views = KFaceViews.parse("T1")
    assert views.varied() == (False, False, False, True)
    assert {c for a, b in ends for c in (a[4], b[4])} == {f"C{c}.jpg" for c in views.cameras}


def test_where_there_are_few_pairs_each_is_taken_once():
    views = KFaceViews.parse("s1~2 l1 e1 c4~5")
    # Two views of a person differ in both attributes in 2 of the 6 pairs of views.
    pairs = draw_kface_pairs(views, 3, 1000)
    genuine = {(p.person_a, p.view_a, p.view_b) if p.view_a < p.view_b else (p.person_a, p.view_b, p.view_a)
               for p in pairs if p.same}  # fmt: skip
    assert genuine == {(k, a, b) for k in range(3) for a, b in ((0, 3), (1, 2))}
    impostor = {frozenset([(p.person_a, p.view_a), (p.person_b, p.view_b)]) for p in pairs if not p.same}
    assert len(impostor) == len(genuine) == sum(not p.same for p in pairs)


def test_the_lists_read_back(tmp_path):
    views = KFaceViews.parse("T1")
    names = ["ann", "bob", "cyd"]
    lines = []
    for p in draw_kface_pairs(views, 3, 20):
        paths = []
        for k, v in ((p.person_a, p.view_a), (p.person_b, p.view_b)):
            s, light, e, c = views.at(v)
            path = tmp_path / names[k] / f"S{s:03d}/L{light}/E{e:02d}/C{c}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            paths.append(str(path.relative_to(tmp_path)))
        lines.append(f"{paths[0]} {paths[1]} {int(p.same)}")
    (tmp_path / "q.txt").write_text("\n".join(lines))
    read = kface_pairs(tmp_path / "q.txt", tmp_path)
    assert read.same.tolist() == [True] * 10 + [False] * 10


@pytest.mark.parametrize(
    ("views", "people", "count", "error", "match"),
    [
        ("T1", 30, 3, ConfigError, "even and at least 2, got 3"),
        ("T1", 1, 2, ConfigError, "two people or more"),
        ("s1 l1 e1 c7", 3, 2, DataError, "Let an attribute vary"),
    ],
)
def test_lists_that_cannot_be_are_said(views, people, count, error, match):
    with pytest.raises(error, match=match):
        draw_kface_pairs(views, people, count)


@settings(max_examples=40, deadline=None)
@given(
    views=st.sampled_from([*KFACE_VIEWS.values(), "s1~2 l1 e1~3 c1~2"]),
    people=st.integers(1, 6),
    share=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_parts_are_distinct_and_balanced(views, people, share, seed):
    grid = KFaceViews.parse(views)
    counts = [max(1, round(share * min(len(grid), 300))) for _ in range(people)]
    parts = balanced_views(grid, counts, seed)
    assert [len(p) for p in parts] == counts
    for part in parts:
        assert np.all(np.diff(part) > 0)
        assert 0 <= part[0] <= part[-1] < len(grid)
    again = balanced_views(grid, counts, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    cells = [grid.at(int(v)) for v in itertools.chain(*parts)]
    dense = counts[0] > len(grid) / 4  # dense parts cannot always be mended by swaps alone
    for axis, name in enumerate(AXES):
        values = getattr(grid, name)
        often = [sum(cell[axis] == value for cell in cells) for value in values]
        assert max(often) - min(often) <= (people * 4 if dense else 1), name


def test_all_of_the_grid_is_all_of_it():
    grid = KFaceViews.parse("T2")
    (part,) = balanced_views(grid, [len(grid)])
    assert np.array_equal(part, np.arange(len(grid)))
    with pytest.raises(ConfigError, match="from 1 to 126 of these views, got 127"):
        balanced_views(grid, [127])
