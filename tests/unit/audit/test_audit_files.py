import csv
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_people import LIMITS, People

from unpg.audit import audit, judge_known, read_known, save_audit
from unpg.errors import DataError
from unpg.report.audit_page import write_audit_page

COLUMNS = {
    "label_noise": "image identity images_of_identity own_similarity verdict nearest_identity nearest_similarity "
    "nearest_image",
    "split_identities": "identity_a identity_b similarity images_a images_b matching_pairs best_similarity "
    "best_image_a best_image_b",
    "near_duplicates": "image_a identity_a image_b identity_b where similarity correlation mirrored",
    "known": "identity_a identity_b group found similarity images_a images_b best_similarity best_image_a best_image_b",
}
COLUMNS["shared_identities"] = COLUMNS["split_identities"]
EVIL = '<img src=x onerror="a()">, & co'


@pytest.fixture
def faulty(sound):
    sound.image("p3", "p7", name=EVIL)
    sound.image("p2", like=10, name="copy")
    for _ in range(3):
        sound.image("p5", EVIL)
    return audit(sound.side(EVIL), LIMITS, sound.side("other"))


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_have_their_columns_and_every_finding(faulty, tmp_path):
    written = save_audit(tmp_path / "out", faulty, about={"model": "m"})
    assert {path.name for path in written} == {f"{n}.csv" for n in COLUMNS if n != "known"} | {"audit.json"}
    for name, columns in COLUMNS.items():
        if name != "known":
            assert (tmp_path / "out" / f"{name}.csv").read_text().splitlines()[0].split(",") == columns.split()
    (noise,) = table(tmp_path / "out" / "label_noise.csv")
    assert (noise["image"], noise["verdict"]) == (EVIL, "another")
    assert float(noise["own_similarity"]) == pytest.approx(faulty.label_noise[0].own_similarity, abs=1e-6)
    split = table(tmp_path / "out" / "split_identities.csv")
    assert [(r["identity_a"], r["identity_b"]) for r in split] == [(EVIL, "p5")]
    assert table(tmp_path / "out" / "near_duplicates.csv")[0]["mirrored"] == "no"
    assert len(table(tmp_path / "out" / "shared_identities.csv")) == len(faulty.shared) == 13
    said = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert said["findings"]["shared_identities"] == 13
    assert said["limits"]["match"]["value"] == 0.6
    assert said["set"] == {"name": EVIL, "images": 55, "identities": 11, "unreadable": []}
    assert said["model"] == "m"


def test_without_findings_there_are_headers_alone(sound, tmp_path):
    found = audit(sound.side(), LIMITS)
    save_audit(tmp_path, found)
    assert {p.name for p in tmp_path.iterdir()} == {
        "label_noise.csv",
        "split_identities.csv",
        "near_duplicates.csv",
        "audit.json",
    }
    assert all(len(path.read_text().splitlines()) == 1 for path in tmp_path.glob("*.csv"))
    text = write_audit_page(tmp_path / "a.html", found).read_text()
    assert "Likely wrong labels: 0" in text
    assert "<img" not in text


def test_tables_of_an_earlier_audit_go(sound, faulty, tmp_path):
    (tmp_path / "mine.csv").write_text("kept")
    (tmp_path / "known.csv").write_text("old")
    save_audit(tmp_path, faulty)
    written = save_audit(tmp_path, audit(sound.side(), LIMITS), about={"model": "m"})
    assert "shared_identities.csv" not in {path.name for path in written}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written} | {"mine.csv"}


def test_a_summary_that_is_cut_off_leaves_the_old_one(faulty, tmp_path, monkeypatch):
    save_audit(tmp_path, faulty)
    before = (tmp_path / "audit.json").read_bytes()
    replace = os.replace

    def stop(source, target):
        if Path(target).name == "audit.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        save_audit(tmp_path, faulty, about={"model": "another"})
    assert (tmp_path / "audit.json").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_names_that_are_no_text_are_kept(sound, tmp_path):
    sound.image("p3", "p7", name="odd\udcff")
    found = audit(sound.side(), LIMITS)
    save_audit(tmp_path, found)
    assert b"odd\xff" in (tmp_path / "label_noise.csv").read_bytes()
    assert "odd\\udcff" in write_audit_page(tmp_path / "a.html", found).read_text()


class Reader(HTMLParser):
    VOID = frozenset({"meta", "img"})

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.links, self.images, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "src":
                self.images.append(value)
            elif name in ("href", "srcset", "action"):
                self.links.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_page_is_whole_in_itself_and_names_cannot_inject_markup(faulty, tmp_path):
    text = write_audit_page(tmp_path / "deep" / "a.html", faulty, model="net").read_text()
    read = Reader()
    read.feed(text)
    assert read.open == []
    assert read.links == []
    assert len(read.images) > 30
    assert all(source.startswith("data:image/jpeg;base64,/9j/") for source in read.images)
    assert not re.search(r"https?:|url\(|@import", text)
    assert "default-src 'none'" in text
    words = " ".join(" ".join(read.words).split())
    for expected in (
        f"Audit of {EVIL}",
        "Likely wrong labels: 1",
        "Identities that look like one person: 1",
        "The same picture twice: 58",  # the copy in the set, each image in the other set, the copy there and back
        "Identities shared with other: 13",
        "cosine 0.6000, as given",
        "nearest: p3",
        "55 images of 11 identities",
    ):
        assert expected in words, expected


def test_page_shows_as_many_as_asked_for(faulty, tmp_path):
    text = write_audit_page(tmp_path / "a.html", faulty, most=2).read_text()
    assert "The first 2 are shown; shared_identities.csv has them all." in text
    assert text.count('class="finding"') == 1 + 1 + 2 + 2


def test_page_is_the_same_twice(faulty, tmp_path):
    one, two = (write_audit_page(tmp_path / name, faulty) for name in ("one.html", "two.html"))
    assert one.read_bytes() == two.read_bytes()


def test_an_image_that_is_gone_leaves_a_word(faulty, tmp_path, monkeypatch):
    def gone(self, i):
        raise DataError("gone")

    monkeypatch.setattr(type(faulty.side.images), "read", gone)
    text = write_audit_page(tmp_path / "a.html", faulty).read_text()
    assert "copy cannot be read" in text
    assert "<img" not in text


def test_known_matches_are_judged(sound, tmp_path):
    other = People(seed=1)
    other.directions = sound.directions
    for person, name in (("p4", "four"), ("p30", "five")):
        for _ in range(2):
            other.image(person, name)
    found = audit(sound.side(), LIMITS, other.side("other"))
    path = tmp_path / "known.tsv"
    path.write_text("# list\na\tb\thow\n\np4\tfour\tname\np5\tfive\tembedding 0.62\n")
    hit, miss = judge_known(found, read_known(path), path)
    assert (hit.identity_a, hit.identity_b, hit.group, hit.found) == ("p4", "four", "name", True)
    assert (miss.identity_a, miss.group, miss.found, miss.images_a, miss.images_b) == ("p5", "embedding", False, 5, 2)
    assert miss.similarity < 0.6 < hit.similarity == found.shared[0].similarity
    assert miss.best_image_b.startswith("five/")
    save_audit(tmp_path, found, [hit, miss])
    assert [row["found"] for row in table(tmp_path / "known.csv")] == ["yes", "no"]
    assert (tmp_path / "known.csv").read_text().splitlines()[0].split(",") == COLUMNS["known"].split()


def test_known_matches_within_a_set_may_come_either_way(sound, tmp_path):
    sound.image("p3", "again")
    (tmp_path / "k.tsv").write_text("a\tb\np3\tagain\nagain\tp3\np1\tp2\n")
    judged = judge_known(audit(sound.side(), LIMITS), read_known(tmp_path / "k.tsv"), "k.tsv")
    assert [match.found for match in judged] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\tb\nonly\n", "line 2: expected <identity> <tab> <identity>"),
        ("a\tb\n\tx\n", "line 2: expected"),
        ("a\tb\n", "no line below its header"),
        ("", "no line below its header"),
        ("a\tb\np1\tp99\n", "line 2: set has no readable image of 'p99'"),
        (None, "cannot be read"),
    ],
)
def test_a_broken_list_is_refused(sound, tmp_path, text, words):
    path = tmp_path / "k.tsv"
    if text is not None:
        path.write_text(text)
    found = audit(sound.side(), LIMITS)
    with pytest.raises(DataError, match=words):
        judge_known(found, read_known(path), path)
