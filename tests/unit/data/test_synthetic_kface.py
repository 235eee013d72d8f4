"""The K-FACE twin: the grid's own directions, the order of the real set, and folders that read like it."""

import csv
import hashlib
import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from unpg.cli.main import main
from unpg.data import FolderSet, Subset
from unpg.data.image_set import truth_of
from unpg.data.kface import KFaceSet, KFaceViews
from unpg.data.open_source import open_source
from unpg.data.source import SOURCES
from unpg.data.synthetic import (
    Accessory,
    Camera,
    KFaceTwin,
    Noise,
    SyntheticFaces,
    Variation,
    kface_view,
    render,
    sample_identity,
)
from unpg.data.synthetic.kface import CAMERAS, LIGHTS, KFaceCells
from unpg.data.synthetic.population import Population
from unpg.data.synthetic.write import WriteOptions, contact_sheet, write_faces, write_kface
from unpg.data.truth_file import read_truth
from unpg.data.unfinished import JOB
from unpg.embed import Model
from unpg.errors import ConfigError, DataError
from unpg.evaluate import BASELINES
from unpg.evaluate.named import open_benchmark
from unpg.export import save_model
from unpg.transforms.tensor import Preprocessing

TINY = (16, 16)
NOISE = Noise(split_identities=0.1, flipped_labels=0.1, twins=0.1)


# --- the grid ---


def test_cameras_and_lights_are_the_tables_of_k_face():
    assert [CAMERAS[c][0] for c in (1, 4, 7, 10, 13)] == [90, 45, 0, -45, -90]
    assert [CAMERAS[c] for c in (14, 17, 20)] == [(45, 30), (0, 30), (-45, 30)]
    assert sorted(LIGHTS) == list(range(1, 31))
    assert LIGHTS[1] == (1000, None, None)
    assert LIGHTS[7][0] == 0
    assert LIGHTS[16] == (400, None, 90)
    assert LIGHTS[30] == (100, None, -45)
    assert [LIGHTS[i][0] for i in range(8, 12)] == [400, 200, 100, 40]
    assert sorted(CAMERAS) == list(range(1, 21))


def halves(cell):
    """Mean gray of the left and the right half of the face, in the light of a cell."""
    made = render([sample_identity(0, 2)], [kface_view(0, 2, cell)], (64, 64))
    gray = made.images[0].double().mean(2)
    seen = made.mask[0]
    return tuple(float(gray[:, part][seen[:, part]].mean()) for part in (slice(16, 32), slice(32, 48)))


def test_the_light_of_a_side_falls_on_that_side_and_stays_with_the_person():
    left, right = halves((1, 16, 1, 7))  # +90
    assert right > 1.5 * left
    left, right = halves((1, 28, 1, 7))  # -45
    assert left > 1.2 * right
    # Camera +45 looks along lamp +45, so what it sees is lit evenly; camera -45 sees the lamp far to the right.
    along, across = (kface_view(0, 2, (1, 20, 1, c)).light.azimuth for c in (4, 10))
    assert abs(along) < 1e-9
    assert abs(across - 90) < 1e-9
    # Lamp +90 is behind what camera -90 sees.
    assert abs(abs(kface_view(0, 2, (1, 16, 1, 13)).light.azimuth) - 180) < 12


def test_turning_a_lamp_is_turning_a_vector():
    pitch, yaw = math.radians(-30), math.radians(-45)
    about_x = np.array([[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]])
    about_y = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    a, e = math.radians(90), math.radians(10)
    lamp = np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
    light = kface_view(0, 0, (1, 16, 1, 14)).light
    a, e = math.radians(light.azimuth), math.radians(light.elevation)
    found = np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
    np.testing.assert_allclose(found, about_y @ about_x @ lamp, atol=1e-12)


def test_fewer_lux_are_darker_and_none_is_dark():
    tones = [sum(halves((1, light, 1, 7))) for light in (1, 2, 3, 4, 5, 6, 7)]
    assert tones == sorted(tones, reverse=True)
    assert tones[0] > 2 * 120
    assert tones[-1] < 2 * 25


def test_each_attribute_changes_its_factor_only():
    base = kface_view(5, 9, (1, 2, 1, 7))
    assert base.accessory == Accessory()
    assert kface_view(5, 9, (5, 2, 1, 7)).accessory.hat >= 0.5
    assert kface_view(5, 9, (4, 2, 1, 7)).accessory.sunglasses >= 0.5
    other = kface_view(5, 9, (5, 2, 1, 7))
    assert (other.pose, other.light, other.camera, other.expression, other.background) == (
        base.pose, base.light, base.camera, base.expression, base.background,
    )  # fmt: skip
    assert kface_view(5, 9, (1, 2, 2, 7)).expression.smile > 0.5
    assert kface_view(5, 9, (1, 2, 3, 7)).expression.brow_raise < -0.5
    # Landmarks are found once per person and camera: the aligner's error is the same under every lamp.
    assert kface_view(5, 9, (1, 6, 1, 7)).camera == base.camera
    assert kface_view(5, 9, (1, 2, 1, 8)).camera != base.camera
    assert isinstance(base.camera, Camera)
    again = kface_view(5, 9, (1, 2, 1, 7), take=1)
    assert again.noise_seed != base.noise_seed
    assert again.camera != base.camera
    seeds = {kface_view(5, 9, c).noise_seed for c in itertools.product((1, 2), (1, 2), (1, 2), (1, 2))}
    assert len(seeds) == 16


# --- the set ---


def test_people_are_split_as_the_paper_s():
    train, test = KFaceTwin(400, "T1"), KFaceTwin(400, "T1", "test")
    assert (len(train.identities), len(test.identities)) == (370, 30)
    assert not set(train.identities) & set(test.identities)
    assert len(train) == 2590
    assert KFaceTwin.count(400, "T4") == 3_862_800
    noisy = KFaceTwin(400, "T1", noise=NOISE)
    assert len(noisy) == 2590
    assert not set(noisy.identities) & set(test.identities)


def test_a_subset_is_shared_out_over_people_and_attributes():
    part = KFaceTwin(40, "T4", subset=3700, seed=2)
    assert (len(part), part.whole) == (3700, 37 * 10_440)
    assert set(np.bincount(part.labels)) == {100}
    grid = KFaceViews.parse("T4")
    for axis, values in enumerate((grid.accessories, grid.lights, grid.expressions, grid.cameras)):
        often = [int((part.cells[:, axis] == v).sum()) for v in values]
        assert max(often) - min(often) <= 1
    assert np.array_equal(KFaceTwin(40, "T4", subset=3700, seed=2).cells, part.cells)
    assert not np.array_equal(KFaceTwin(40, "T4", subset=3700, seed=3).cells, part.cells)


def test_flipped_images_are_of_the_view_that_their_place_says():
    noisy = KFaceTwin(12, "T1", size=TINY, noise=Noise(flipped_labels=0.2))
    i = int(np.flatnonzero(noisy.true_labels != noisy.labels)[0])
    who, view = noisy.parameters(i)
    assert who == noisy.population.person(int(noisy.true_labels[i]))
    assert view.pose == kface_view(0, 0, noisy.cell(i)).pose
    assert noisy.takes[i] > 0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"part": "dev"}, "'train' or 'test'"),
        ({"part": "test", "twins": 0.1}, "test part of the K-FACE twin has no noise"),
        ({"identities": 3}, "identities must be a whole number of at least 4"),
        ({"views": "T5"}, "Known: T1, T2, T3, T4"),
        ({"subset": 5}, "subset must be a whole number of at least 37"),
        ({"subset": 5000}, "has 259 images; a subset of 5,000 is more"),
    ],
)
def test_sets_that_cannot_be_are_said(settings, match):
    with pytest.raises(ConfigError, match=match):
        SOURCES.build("kface-twin", {"identities": 40, "size": [16, 16], **settings})


def test_nobody_is_left_to_train():
    with pytest.raises(ConfigError, match="Of 10 identities 9 for testing leave 1"):
        KFaceTwin(10, test_identities=9)


# --- folders ---


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("w") / "root"
    options = WriteOptions(form="png", masks=True)
    told = []
    write_kface(
        out, identities=24, train="T2", subset=220, pairs=40, seed=6, size=TINY, noise=NOISE, options=options,
        progress=lambda *done: told.append(done),
    )  # fmt: skip
    return out / "kface", told


def rows(file):
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def test_what_lies_on_disk_is_what_is_rendered_on_demand(written):
    folder, told = written
    demand = SOURCES.build(
        "kface-twin",
        {"identities": 24, "views": "T2", "subset": 220, "seed": 6, "size": list(TINY), "split_identities": 0.1,
         "flipped_labels": 0.1, "twins": 0.1, "on_demand": True},
    )  # fmt: skip
    disk = KFaceSet(folder / "images", "T2", folder / "test_ids.txt", ext="png", allow_missing=True)
    assert len(disk) == len(demand) == 220
    assert disk.identities == demand.identities
    assert np.array_equal(disk.labels, demand.labels)
    assert all(np.array_equal(disk.read(i), demand.read(i)) for i in range(0, 220, 7))
    assert told[-1][0] == told[-1][1] == sum(1 for _ in (folder / "images").rglob("*.png"))
    shows = {row["path"]: row["shows"] for row in rows(folder / "truth.csv")}
    assert [shows[f"{demand.stem(i)}.png"] for i in range(220)] == [demand.identities[k] for k in demand.true_labels]


def test_landmarks_masks_and_sums_are_those_of_each_image(written):
    folder, _ = written
    marks = rows(folder / "landmarks.csv")
    test = KFaceCells(Population(2, 6), np.array([0]), np.array([[1, 1, 1, 7]]), TINY)
    row = next(r for r in marks if r["path"] == f"{test.stem(0)}.png")
    made = test.render([0])
    assert [float(v) for k, v in row.items() if k != "path"] == pytest.approx(
        made.landmarks[0].flatten().tolist(), abs=1e-3
    )
    with Image.open(folder / "masks" / row["path"]) as image:
        mask = np.asarray(image.convert("L")) > 0
    assert np.array_equal(mask, made.mask[0].numpy())
    sums = [line.split("  ") for line in (folder / "manifest.sha256").read_text().splitlines()]
    assert len(sums) == 2 * len(marks)
    for digest, name in sums:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_the_truth_on_disk_is_that_of_the_rendered_set(written):
    folder, _ = written
    disk = KFaceSet(folder / "images", "T2", folder / "test_ids.txt", ext="png", allow_missing=True)
    rendered = KFaceTwin(24, "T2", subset=220, seed=6, size=TINY, noise=NOISE)
    read, known = read_truth(folder / "truth.csv", disk), truth_of(rendered)
    assert np.array_equal(read.labels, known.labels)
    assert np.array_equal(read.twin_of, known.twin_of)
    part = Subset(disk, np.flatnonzero(disk.labels > 8))
    read, known = read_truth(folder / "truth.csv", part), truth_of(Subset(rendered, part.indices))
    assert np.array_equal(read.labels[:, None] == read.labels, known.labels[:, None] == known.labels)
    assert np.array_equal(read.labels[:, None] == read.twin_of, known.labels[:, None] == known.twin_of)


def test_a_truth_of_another_set_is_refused(written, tmp_path):
    folder, _ = written
    disk = KFaceSet(folder / "images", "T2", folder / "test_ids.txt", ext="png", allow_missing=True)
    lines = (folder / "truth.csv").read_text().splitlines()
    other = lines[1].replace(",seed6-000002,", ",seed6-000003,")
    cases = {
        "has no line for": lines[:3],
        "line 1: expected the columns path, identity, shows; shows is missing": ["path,identity", *lines[1:]],
        f"line {len(lines) + 1}: expected 3 values, got 2": [*lines, "a,b"],
        "line 2: the record that begins here does not read as CSV": [lines[0], '"' + lines[1], *lines[2:]],
        "of 'seed6-000003' there": [lines[0], other, *lines[2:]],
    }
    for match, table in cases.items():
        text = "\n".join(table)
        (tmp_path / "truth.csv").write_text(text)
        with pytest.raises(DataError, match=match):
            read_truth(tmp_path / "truth.csv", disk)


def test_diagnose_takes_the_truth_file(written, tmp_path, capsys):
    folder, _ = written
    torch.manual_seed(0)
    model = Model.create("small_iresnet", input_size=TINY, preprocessing=Preprocessing(size=TINY), dim=8,
                         widths=[4, 4, 4, 4], blocks=[1, 1, 1, 1])  # fmt: skip
    save_model(tmp_path / "m.safetensors", model)
    words = ["diagnose", str(tmp_path / "m.safetensors"), "--truth", str(folder / "truth.csv"), "--device", "cpu"]
    assert main([*words, "--data", str(folder / "images")]) == 0
    assert "labels are wrong on purpose" in capsys.readouterr().out
    assert main([*words, "--benchmark", str(folder / "images")]) == 2
    assert "A truth file goes with a labelled set" in capsys.readouterr().err


def test_the_manifest_says_subset_and_noise(written):
    about = json.loads((written[0] / "manifest.json").read_text())
    assert about["train"] == {"views": "T2", "identities": 22, "images": 220, "of": 22 * 126, "subset": True}
    assert about["lists"]["Q4"] == {"pairs": 40, "genuine": 20, "of": 100_000, "subset": True}
    assert about["noise"]["identities_split"] == about["noise"]["identities_twins"] == 2
    assert about["noise"]["images_flipped"] == 22
    people = rows(written[0] / "identities.csv")
    assert sum(r["twin_of"] != "" for r in people) == sum(r["person_of"] != "" for r in people) == 2
    assert [r["identity"] for r in people if r["part"] == "test"] == (written[0] / "test_ids.txt").read_text().split()
    assert not list(written[0].parent.rglob(JOB))
    assert not (written[0].parent / "groups").exists()


@pytest.mark.parametrize("name", ["kface-q1", "kface-q2", "kface-q3", "kface-q4"])
def test_the_benchmarks_read_it_as_a_real_one(written, name):
    benchmark = open_benchmark(name, written[0].parent)
    result = benchmark.run(BASELINES["grey-pixels"])
    assert benchmark.left_out == 0
    assert len(benchmark.same) == 40
    assert 0 <= result.metrics()["auc"] <= 1


def test_a_stopped_run_goes_on_and_gives_the_same_folder(tmp_path):
    settings = {"identities": 8, "train": "T1", "pairs": 20, "seed": 2, "size": TINY}
    whole = write_kface(tmp_path / "a", **settings)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_kface(tmp_path / "b", **settings, progress=stop)
    partial = tmp_path / "b.partial"
    first = sorted((partial / "kface/images").rglob("*.jpg"))
    assert len(first) == 42
    # What was finished is not done again; what was half done is.
    first[0].write_bytes(b"left alone")
    with pytest.raises(DataError, match="beginning of another job"):
        write_kface(tmp_path / "b", **{**settings, "seed": 3})
    first[0].write_bytes((tmp_path / "a" / first[0].relative_to(partial)).read_bytes())
    again = write_kface(tmp_path / "b", **settings)
    assert again.manifest == whole.manifest
    assert not partial.exists()
    with pytest.raises(ConfigError, match=r"a exists\. Remove it"):
        write_kface(tmp_path / "a", **settings)


@pytest.mark.slow
def test_more_processes_write_the_same_folder(tmp_path):
    settings = {"identities": 8, "train": "T1", "pairs": 60, "seed": 2, "size": TINY}
    one = write_kface(tmp_path / "a", **settings)
    two = write_kface(tmp_path / "b", **settings, options=WriteOptions(workers=2))
    assert one.manifest == two.manifest
    assert one.manifest["images"] > 64, "more than one group"


def test_plain_folders_read_back(tmp_path):
    faces = SyntheticFaces(4, 3, seed=5, size=TINY)
    write_faces(faces, tmp_path / "p", WriteOptions(form="png"))
    read = FolderSet(tmp_path / "p/images")
    assert read.identities == faces.identities
    assert all(np.array_equal(read.read(i), faces.read(i)) for i in range(12))


def test_jpeg_is_near_the_pixels(tmp_path):
    faces = SyntheticFaces(2, 1, seed=5, size=(64, 64))
    write_faces(faces, tmp_path / "p")
    read = FolderSet(tmp_path / "p/images")
    assert np.abs(read.read(1).astype(int) - faces.read(1)).mean() < 3


def test_a_sheet_has_a_person_per_row():
    twin = KFaceTwin(8, "T1", size=TINY)
    sheet = contact_sheet(twin, 3, 4)
    assert sheet.shape == (48, 64, 3)
    assert np.array_equal(sheet[16:32, :16], twin.read(7))
    assert np.array_equal(sheet[16:32, 48:], twin.read(13))
    assert contact_sheet(twin, 1, 9).shape == (16, 7 * 16, 3), "no wider than what there is"
    part = KFaceTwin(8, "T1", subset=11, size=TINY)
    assert np.bincount(part.labels).tolist() == [2, 2, 2, 2, 2, 1]
    assert (contact_sheet(part)[5 * 16 :, 16:] == 255).all(), "an image that is not there is white"
    with pytest.raises(ConfigError, match="one person and one view"):
        contact_sheet(twin, 0)


# --- the command ---


def test_the_command_writes_and_says_what(tmp_path, capsys):
    out = tmp_path / "t"
    words = [
        "data",
        "synth",
        "--identities",
        "8",
        "--train",
        "T3",
        "--subset",
        "60",
        "--pairs",
        "10",
        "--size",
        "16",
        "16",
    ]
    assert main([*words, "--flipped-labels", "0.1", "--out", str(out), "--sheet", str(tmp_path / "s" / "s.png")]) == 0
    said = capsys.readouterr().out
    assert "train: T3, 60 images (a subset of 10,608) of 6 people" in said
    assert "Q1: 10 pairs, a subset of the authors' 1,000; 5 genuine" in said
    assert "6 images show another person than their label says" in said
    with Image.open(tmp_path / "s/s.png") as sheet:
        assert sheet.size == (160, 96)
    assert (out / "kface/kface.Q4.txt").is_file()
    assert main([*words, "--out", str(out)]) == 2
    assert "exists. Remove it" in capsys.readouterr().err


def test_the_command_writes_plain_folders(tmp_path, capsys):
    words = ["data", "synth", "--protocol", "plain", "--identities", "3", "--views", "2", "--size", "16", "16"]
    assert main([*words, "--out", str(tmp_path / "p")]) == 0
    assert "6 images (jpg, quality 95" in capsys.readouterr().out
    assert main(["data", "info", str(tmp_path / "p/images")]) == 0
    vary = ["--vary", "jpeg", "5", "9", "--vary", "resolution", "0.5", "0.5"]
    assert main([*words, *vary, "--form", "png", "--out", str(tmp_path / "poor")]) == 0
    faces = SyntheticFaces(3, 2, size=(16, 16), variation=Variation(jpeg=(5, 9), resolution=(0.5, 0.5)))
    assert np.array_equal(np.array(Image.open(tmp_path / "poor/images" / f"{faces.stem(3)}.png")), faces.read(3))
    told = json.loads((tmp_path / "poor/manifest.json").read_text())["variation"]
    assert told["jpeg"] == [5.0, 9.0]
    assert told["yaw"] == list(Variation().yaw)
    # The folder itself stands for its images, whatever else lies in it.
    assert main([*words, "--masks", "--out", str(tmp_path / "masked")]) == 0
    assert open_source(tmp_path / "masked").identities == faces.identities


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "Say where to write"),
        (["--subset", "many", "--out", "x"], "--subset is a whole number or 'all', got 'many'"),
        (["--pairs", "3", "--out", "x"], "pairs must be even"),
        (["--quality", "50", "--out", "x"], "from 90 to 100, got 50"),
        (["--workers", "0", "--out", "x"], "workers must be at least 1"),
        (["--protocol", "plain", "--subset", "5", "--out", "x"], "--subset belongs to --protocol kface"),
        (
            ["--protocol", "plain", "--train", "T3", "--out", "x"],
            "--train belongs to --protocol kface; plain has --views",
        ),
        (["--views", "3", "--out", "x"], "--views belongs to --protocol plain; kface has --train, --subset, --pairs."),
        (["--first-identity", "0", "--out", "x"], "--first-identity belongs to --protocol plain"),
        (["--twins", "0.9", "--out", "x"], "0.5 together"),
        (["--vary", "jpeg", "20", "80", "--out", "x"], "--vary belongs to --protocol plain"),
        (["--protocol", "plain", "--vary", "jpeg", "low", "80", "--out", "x"], "--vary jpeg takes two numbers"),
        (["--protocol", "plain", "--vary", "blurr", "0", "1", "--out", "x"], "Did you mean 'blur'"),
        (["--protocol", "plain", "--vary", "jpeg", "0", "80", "--out", "x"], "Variation.jpeg must be None or a range"),
    ],
)
def test_the_command_says_what_does_not_fit(words, match, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "synth", "--identities", "8", "--size", "16", "16", *words]) == 2
    assert match in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
