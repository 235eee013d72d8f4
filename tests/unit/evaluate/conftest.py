"""A data root with every registered set: 24 "people", each a colored pattern, and each image a noisy one of it."""

import io

import numpy as np
import pytest
from PIL import Image

from unpg.data.bins import write_bin
from unpg.data.megaface import write_feature_list

PEOPLE, EACH = 24, 4
scipy_io = pytest.importorskip("scipy.io")


class Maker:
    """Writes images of people and remembers who is who."""

    def __init__(self, root):
        self.root = root
        self.rng = np.random.default_rng(0)
        self.patterns = np.kron(self.rng.integers(30, 225, (PEOPLE, 4, 4, 3)), np.ones((1, 4, 4, 1)))

    def image(self, who):
        """16 x 16, of a known person or (None) of a new one."""
        base = (
            self.patterns[who]
            if who is not None
            else np.kron(self.rng.integers(30, 225, (4, 4, 3)), np.ones((4, 4, 1)))
        )
        return np.clip(base + self.rng.normal(0, 20, base.shape), 0, 255).astype(np.uint8)

    def save(self, path, who):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.image(who)).save(file, quality=95)

    def content(self, who):
        stream = io.BytesIO()
        Image.fromarray(self.image(who)).save(stream, "PNG")
        return stream.getvalue()

    def write(self, path, lines):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n")

    def impostors(self, n):
        """(n, 4): two different people and an image of each."""
        a = self.rng.integers(0, PEOPLE, n)
        b = (a + self.rng.integers(1, PEOPLE, n)) % PEOPLE
        return np.stack([a, b, self.rng.integers(1, EACH + 1, n), self.rng.integers(1, EACH + 1, n)], axis=1).tolist()

    def genuine(self, n):
        """(n, 3): a person and two different images."""
        first = self.rng.integers(1, EACH, n)
        second = first + self.rng.integers(1, EACH + 1 - first)
        return np.stack([self.rng.integers(0, PEOPLE, n), first, second], axis=1).tolist()


@pytest.fixture(scope="session")
def every_set(tmp_path_factory):
    """The data root; nobody writes into it."""
    make = Maker(tmp_path_factory.mktemp("every_set"))
    names = [f"Name_{chr(97 + p)}" for p in range(PEOPLE)]
    _lfw(make, names)
    _cfp(make)
    _verification(make, names)
    _kface(make)
    for name, galleries in (("ijbb", ("S1", "S2")), ("ijbc", ("G1", "G2"))):
        _templates(make, name, galleries)
    _megaface(make)
    _rfw(make)
    _tinyface(make)
    _yaleb(make)
    return make.root


def _lfw(make, names):
    files = []
    for p, name in enumerate(names):
        for i in range(1, EACH + 1):
            make.save(f"lfw/images/{name}/{name}_{i:04d}.jpg", p)
            files.append((p, i, f"{name}_{i:04d}.jpg"))
    lines = ["10\t6"]
    for _ in range(10):
        lines += [f"{names[p]}\t{i}\t{j}" for p, i, j in make.genuine(6)]
        lines += [f"{names[a]}\t{i}\t{names[b]}\t{j}" for a, b, i, j in make.impostors(6)]
    make.write("lfw/pairs.txt", lines)
    # BLUFR: 18 people tested, 12 of them enrolled with their first image; numbers count from 1.
    trials = [make.rng.permutation(PEOPLE)[:18] for _ in range(3)]

    def cell(numbers):
        found = np.empty((len(numbers), 1), dtype=object)
        for t, part in enumerate(numbers):
            found[t, 0] = np.array(part, dtype=np.float64)[:, None]
        return found

    test = [[n for n, (p, _, _) in enumerate(files, 1) if p in who] for who in trials]
    gallery = [[n for n, (p, i, _) in enumerate(files, 1) if p in who[:12] and i == 1] for who in trials]
    listed = np.empty((len(files), 1), dtype=object)
    listed[:, 0] = [name for _, _, name in files]
    variables = {
        "imageList": listed,
        "testIndex": cell(test),
        "galIndex": cell(gallery),
        "probIndex": cell([[n for n in t if n not in g] for t, g in zip(test, gallery, strict=True)]),
    }
    scipy_io.savemat(make.root / "lfw/blufr_lfw_config.mat", variables)


def _cfp(make):
    sides = {"F": [], "P": []}
    for p in range(PEOPLE):
        for kind, word in (("F", "frontal"), ("P", "profile")):
            for i in range(1, EACH + 1):
                make.save(f"cfp/images/{p + 1:03d}/{word}/{i:02d}.jpg", p)
                sides[kind].append(f"{len(sides[kind]) + 1} ../Data/Images/{p + 1:03d}/{word}/{i:02d}.jpg")
    for kind, lines in sides.items():
        make.write(f"cfp/protocol/Pair_list_{kind}.txt", lines)
    for kind in ("FF", "FP"):
        for fold in range(1, 11):
            same = [f"{p * EACH + i},{p * EACH + j}" for p, i, j in make.genuine(6)]
            diff = [f"{a * EACH + i},{b * EACH + j}" for a, b, i, j in make.impostors(6)]
            make.write(f"cfp/protocol/Split/{kind}/{fold:02d}/same.txt", same)
            make.write(f"cfp/protocol/Split/{kind}/{fold:02d}/diff.txt", diff)


def _yaleb(make):
    for p in range(PEOPLE):
        for i in range(EACH):
            make.save(f"yaleb/yaleB{p + 1:02d}/yaleB{p + 1:02d}_P00A+{5 * i:03d}E+00.jpg", p)


def _verification(make, names):
    """AgeDB as a table, CALFW as its list, CPLFW as a .bin file."""
    for p, name in enumerate(names):
        for i in range(1, EACH + 1):
            make.save(f"agedb-30/images/{p}_{i}.jpg", p)
            make.save(f"calfw/images/{name}_{i:04d}.jpg", p)
    genuine, impostors = make.genuine(60), make.impostors(60)
    rows = [f"{p}_{i}.jpg,{p}_{j}.jpg,1,{n % 10}" for n, (p, i, j) in enumerate(genuine)]
    rows += [f"{a}_{i}.jpg,{b}_{j}.jpg,0,{n % 10}" for n, (a, b, i, j) in enumerate(impostors)]
    make.write("agedb-30/pairs.csv", ["path_a,path_b,same,fold", *rows])
    lines = []
    for n, (p, i, j) in enumerate(genuine):
        lines += [f"{names[p]}_{k:04d}.jpg {n // 6 + 1}" for k in (i, j)]
    for a, b, i, j in impostors:
        lines += [f"{names[a]}_{i:04d}.jpg 0", f"{names[b]}_{j:04d}.jpg 0"]
    make.write("calfw/pairs_CALFW.txt", lines)
    answers = [n % 12 < 6 for n in range(120)]
    contents = []
    for same in answers:
        a, b = make.rng.permutation(PEOPLE)[:2]
        contents += [make.content(a), make.content(a if same else b)]
    write_bin(make.root / "cplfw.bin", contents, answers)


def _kface(make):
    people = [f"19{p:06d}" for p in range(PEOPLE)]
    for p, person in enumerate(people):
        for camera in range(4, 4 + EACH):
            make.save(f"kface/images/{person}/S001/L1/E01/C{camera}.jpg", p)
    for name in ("Q1", "Q2", "Q3", "Q4"):
        view = "S001/L1/E01"
        lines = [f"{people[p]}/{view}/C{3 + i}.jpg {people[p]}/{view}/C{3 + j}.jpg 1" for p, i, j in make.genuine(60)]
        lines += [
            f"{people[a]}/{view}/C{3 + i}.jpg {people[b]}/{view}/C{3 + j}.jpg 0" for a, b, i, j in make.impostors(60)
        ]
        make.write(f"kface/kface.{name}.txt", lines)


def _templates(make, name, galleries):
    """Templates 10 p .. 10 p + 2 show person p: one gallery template, two of probes, three images each in two media."""
    faces, points = [], []
    for p in range(PEOPLE):
        for t in range(3):
            for i in range(3):
                image = f"{p}_{t}_{i}.jpg"
                make.save(f"{name}/images/{image}", p)
                faces.append(f"{image} {10 * p + t} {100 * p + (0 if i < 2 else i)}")
                points.append(f"{image} {' '.join(['1.5'] * 10)} {make.rng.uniform(0.5, 1):.3f}")
    make.write(f"{name}/meta/{name}_face_tid_mid.txt", faces)
    make.write(f"{name}/meta/{name}_name_5pts_score.txt", points)
    pairs = [
        f"{10 * p} {10 * q + t} {int(p == q)}"
        for p in range(PEOPLE)
        for q in range(PEOPLE)
        for t in (1, 2)
        if p == q or make.rng.random() < 0.2
    ]
    make.write(f"{name}/meta/{name}_template_pair_label.txt", pairs)
    half = PEOPLE // 2
    for gallery, people in zip(galleries, (range(half), range(half, PEOPLE)), strict=True):
        rows = [f"{10 * p},{p}" for p in people]
        make.write(f"{name}/meta/{name}_1N_gallery_{gallery}.csv", ["TEMPLATE_ID,SUBJECT_ID", *rows])
    rows = [f"{10 * p + t},{p}" for p in range(PEOPLE) for t in (1, 2)]
    make.write(f"{name}/meta/{name}_1N_probe_mixed.csv", ["TEMPLATE_ID,SUBJECT_ID", *rows])


def _megaface(make):
    probes = [(p, f"P{p}/P{p}_{i}.png") for p in range(PEOPLE) for i in range(EACH)]
    for p, path in probes:
        make.save(f"megaface/facescrub_images/{path}", p)
    far = [f"{i}/{i}@N/{i}_0.png" for i in range(60)]
    for path in far:
        make.save(f"megaface/megaface_images/{path}", None)
    # One probe and one distractor are noise: they show each other's people.
    make.save("megaface/facescrub_images/P0/P0_9.png", None)
    make.save("megaface/megaface_images/99/99@N/99_0.png", 0)
    lists = make.root / "megaface/templatelists"
    people = [*(f"P{p}" for p, _ in probes), "P0"]
    write_feature_list(lists / "facescrub_features_list.json", [*(path for _, path in probes), "P0/P0_9.png"], people)
    write_feature_list(lists / "megaface_features_list.json_1000000_1", [*far, "99/99@N/99_0.png"])
    make.write("megaface/facescrub_noises.txt", ["# noise", "P0_9.png"])
    make.write("megaface/megaface_noises.txt", ["1\t99/99@N/99_0.png"])


def _rfw(make):
    for group in ("African", "Asian", "Caucasian", "Indian"):
        for p in range(PEOPLE):
            for i in range(1, EACH + 1):
                make.save(f"rfw/data/{group}/m.{p}/m.{p}_{i:04d}.jpg", p)
        lines = []
        for _ in range(10):
            lines += [f"m.{p}\t{i}\t{j}" for p, i, j in make.genuine(12)]
            lines += [f"m.{a}\t{i}\tm.{b}\t{j}" for a, b, i, j in make.impostors(12)]
        make.write(f"rfw/txts/{group}/{group}_pairs.txt", lines)


def _tinyface(make):
    def listed(kind, folder, images):
        names = np.empty((EACH // 2 * PEOPLE, 1), dtype=object)
        numbers = np.zeros((len(names), 1))
        for row, (p, i) in enumerate((p, i) for p in range(PEOPLE) for i in images):
            names[row, 0], numbers[row] = f"{p}_{i}.jpg", p
            make.save(f"tinyface/Testing_Set/{folder}/{p}_{i}.jpg", p)
        prefix = "gallery_match" if kind == "gallery" else "probe"
        variables = {f"{kind}_set": names, f"{kind}_ids": numbers}
        scipy_io.savemat(make.root / f"tinyface/Testing_Set/{prefix}_img_ID_pairs.mat", variables)

    (make.root / "tinyface/Testing_Set").mkdir(parents=True)
    listed("gallery", "Gallery_Match", (1, 2))
    listed("probe", "Probe", (3, 4))
    for i in range(40):
        make.save(f"tinyface/Testing_Set/Gallery_Distractor/{i}.jpg", None)
