"""Every reader of files that a stranger may have made, with a small sound file to begin from: one line per reader."""

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
import yaml
from hostile_mutations import TEXTS, repair_journal, repair_png, repair_tar
from PIL import Image

from unpg.audit.known import read_known
from unpg.config import from_yaml, to_dict
from unpg.data import bins, blufr, exclude, folder, ijb, kface, listed, mat5, megaface, names_file, pairs, rfw, tinyface
from unpg.data.convert import FORMS, convert
from unpg.data.convert.naming import image_ending
from unpg.data.decode import decode, decode_sized, file_content
from unpg.data.index_cache import cache_folder, load_index
from unpg.data.lmdb_set import LmdbSet, _open
from unpg.data.open_source import open_source
from unpg.data.parquet import ParquetSet
from unpg.data.record_set import RecordSet
from unpg.data.recordio import RecordFile, RecordWriter, pack
from unpg.data.stretched import StretchedSet
from unpg.data.tar_set import TarSet
from unpg.data.truth_file import read_truth
from unpg.data.yaleb import YaleBSet
from unpg.embed.embeddings import Embeddings
from unpg.embed.model import Model
from unpg.errors import DataError, UnpgError
from unpg.evaluate.diagnosis import load_diagnosis
from unpg.evaluate.judge import judge_pairs
from unpg.evaluate.named import open_benchmark
from unpg.evaluate.named_searches import judge_megaface_features
from unpg.evaluate.results import Result, load_results, save_results
from unpg.export.foreign import read_state_dict
from unpg.export.importers import import_weights
from unpg.export.model_file import load_model, save_model
from unpg.report.run import load_run, settings
from unpg.study.diagnoses import read_diagnoses
from unpg.study.recipe import read_study
from unpg.study.results import Results as StudyResults
from unpg.train.checkpoint import Identities, RunState, latest_checkpoint, load_checkpoint, save_checkpoint
from unpg.train.config import TrainConfig
from unpg.train.faults import write_faults
from unpg.train.log import MetricsLog
from unpg.train.tensor_store import read_tensors
from unpg.transforms.tensor import Preprocessing


@dataclass(frozen=True)
class Reader:
    """A row of the table.

    ``make`` writes sound files into an empty folder, ``targets`` are those to damage, ``read`` reads all there is to
    read in the folder. ``covers`` are the public names that ``read`` goes through, ``count`` how many damaged files
    the long test makes.
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    targets: Sequence[str]
    covers: Sequence[str] = ()
    tokens: Sequence[bytes] = ()
    repair: Callable[[bytes], bytes] | None = None
    count: int = 2500
    mends: bool = False
    """True where a damaged file need not be refused, since it is written again from what is sound."""
    whole: bool = True
    """False where even the file to begin from is refused, since a whole one takes megabytes."""


# --- sound files -----------------------------------------------------------------------------------------------------


@lru_cache
def picture(value: int, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def image_file(path: Path, value: int = 0, form: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(value, form))


def record_file(folder: Path) -> None:
    """insightface's layout: a head, four images of two people, two identity records."""
    with RecordWriter(folder / "a.rec") as out:
        out.write(0, pack([5.0, 7.0], b""))
        for i in range(1, 5):
            out.write(i, pack([float((i - 1) // 2), 0.0], picture(i), id=i))
        out.write(5, pack([1.0, 3.0], b"", id=5))
        out.write(6, pack([3.0, 5.0], b"", id=6))
    lines = (f"{i}\t{(i - 1) // 2}\tn{(i - 1) // 2}/{i}.png\n" for i in range(1, 5))
    (folder / "a.lst").write_text("".join(lines))
    (folder / "a.identities.json").write_bytes(names_file.names_bytes(["Zoë", "\udcff/b"]))


def records_without_index(folder: Path) -> None:
    with RecordWriter(folder / "a.rec") as out:
        for i in range(3):
            out.write(i, pack(float(i % 2), picture(i) + b"\x0a\x23\xd7\xce" * 3, id=i))
    (folder / "a.idx").unlink()


def pickles(folder: Path) -> None:
    pictures = [np.frombuffer(picture(i), dtype=np.uint8) for i in range(2)]
    held = (pictures, [True, np.bool_(False), np.int64(1)], np.arange(6, dtype="<f4").reshape(2, 3), "text", b"bytes")
    for protocol in range(6):
        (folder / f"{protocol}.pkl").write_bytes(pickle.dumps(held, protocol=min(protocol, 4)))


def pairs_of_images(folder: Path) -> None:
    for who in ("A", "B", "C"):
        for i in (1, 2):
            image_file(folder / "images" / who / f"{who}_{i:04d}.png", ord(who) + i)


def lfw_list(folder: Path) -> None:
    pairs_of_images(folder)
    (folder / "pairs.txt").write_text("2\t1\nA\t1\t2\nA\t1\tB\t2\nB\t1\t2\nB\t1\tA\t1\n")


def cfp_lists(folder: Path) -> None:
    protocol = folder / "protocol"
    for side, kind in (("F", "frontal"), ("P", "profile")):
        lines = []
        for who in (1, 2):
            image_file(folder / f"images/{who:03d}/{kind}/01.jpg", who, "JPEG")
            lines.append(f"{who} ../Data/Images/{who:03d}/{kind}/01.jpg\n")
        protocol.mkdir(exist_ok=True)
        (protocol / f"Pair_list_{side}.txt").write_text("".join(lines))
    for fold in ("01", "02"):
        place = protocol / "Split" / "FP" / fold
        place.mkdir(parents=True)
        (place / "same.txt").write_text("1,1\n2,2\n")
        (place / "diff.txt").write_text("1,2\n2,1\n")


def csv_list(folder: Path) -> None:
    pairs_of_images(folder)
    a, b = "images/A/A_0001.png", "images/B/B_0001.png"
    (folder / "pairs.csv").write_text(
        f"path_a,path_b,same,fold,identity_a,identity_b\n{a},images/A/A_0002.png,1,0,A,A\n{a},{b},false,1,A,B\n"
    )


def image_lists(folder: Path) -> None:
    pairs_of_images(folder)
    (folder / "a.txt").write_text("# two people\nimages/A/A_0001.png\tA\nimages/B/B_0001.png B\n")
    (folder / "a.csv").write_text('path,identity\nimages/A/A_0001.png,A\n"images/B/B_0001.png",B\n')
    (folder / "people.tsv").write_text("name\tother\nA\tx\n")
    (folder / "people.txt").write_text("# nobody else\nA\n")


def kface_tree(folder: Path) -> None:
    for person in ("p1", "p2", "p3", "p4"):
        for camera in (4, 5):
            image_file(folder / f"k/{person}/S001/L1/E01/C{camera}.jpg", camera, "JPEG")
    (folder / "test.txt").write_text("p3\np4\n")
    inside = "S001/L1/E01"
    (folder / "Q.txt").write_text(f"p1/{inside}/C4.jpg p1/{inside}/C5.jpg 1\np1/{inside}/C4.jpg p2/{inside}/C4.jpg 0\n")
    (folder / "short.txt").write_text("p1 C4 p1 C5 1\np1 C4 p2 C4 0\n")


def rfw_tree(folder: Path) -> None:
    for group in rfw.RFW_GROUPS:
        bins.write_bin(folder / f"{group}_test.bin", [picture(i) for i in range(4)], [True, False])
    for who in ("m.1", "m.2"):
        for i in (1, 2):
            image_file(folder / f"data/African/{who}/{who}_{i:04d}.jpg", i, "JPEG")
    (folder / "txts/African").mkdir(parents=True)
    (folder / "txts/African/African_pairs.txt").write_text("m.1\t1\t2\nm.1\t1\tm.2\t2\n")


def ijb_lists(folder: Path) -> None:
    (folder / "ijbc_face_tid_mid.txt").write_text("1.jpg 11 7\n2.jpg 3 7\n3.jpg 20 9\n")
    (folder / "ijbc_template_pair_label.txt").write_text("3 11 1\n20 3 0\n")
    points = "".join(f"{i}.jpg {' '.join(str(10 * i + j + 0.5) for j in range(10))} 0.{i}\n" for i in range(1, 4))
    (folder / "ijbc_name_5pts_score.txt").write_text(points)
    (folder / "img.list").write_text("".join(f"data/{i}.jpg 0\n" for i in range(1, 4)))
    (folder / "ijbc_1N_gallery_G1.csv").write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n3,700,a.jpg\n3,700,b.jpg\n")
    (folder / "ijbc_1N_probe_mixed.csv").write_text("TEMPLATE_ID,SUBJECT_ID\n11,700\n20,701\n")


def megaface_files(folder: Path) -> None:
    for i in range(2):
        megaface.write_feature(folder / f"A/{i}.png_x.bin", np.arange(4) + i)
    megaface.write_feature_list(folder / "list.json", ["A/0.png", "A/1.png"], ["A", "A"])
    (folder / "facescrub.txt").write_text("# noise\nA_1.png\nB_2.png\n")
    (folder / "megaface.txt").write_text("1\t107/a/1.jpg\n107/b/2.jpg\n")


def names_files(place: Path) -> None:
    for who in ("a", "b%2Fc"):
        image_file(place / "people" / who / "1.png", len(who))
    (place / "people" / names_file.NAMES_FILE).write_bytes(names_file.folder_names_bytes({"b%2Fc": "b/c"}))
    (place / "list.json").write_bytes(names_file.names_bytes(["a", "b/c", "Zoë"]))


def calfw_list(folder: Path) -> None:
    pairs_of_images(folder)
    lines = ("A_0001.png 1", "A_0002.png 1", "B_0001.png 2", "B_0002.png 2", "A_0001.png 0", "B_0001.png 0")
    (folder / "list.txt").write_text("\n".join(lines))
    for file in (folder / "images").rglob("*.png"):
        file.rename(folder / "images" / file.name)


def blufr_file(folder: Path) -> None:
    def cell(name: str, inside: Sequence[bytes]) -> bytes:
        return mat_matrix(1, (len(inside), 1), name, b"".join(inside))

    def numbers(*values: int) -> bytes:
        return mat_matrix(6, (len(values), 1), "", mat_element(9, np.array(values, "<f8").tobytes()))

    texts = [mat_matrix(4, (1, len(n)), "", mat_element(16, n.encode())) for n in BLUFR_NAMES]
    variables = [cell("imageList", texts), cell("testIndex", [numbers(1, 2, 3, 4), numbers(2, 3, 4)])]
    variables += [cell("galIndex", [numbers(1), numbers(3)]), cell("probIndex", [numbers(2, 3), numbers(2, 4)])]
    (folder / "blufr.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(variables))


BLUFR_NAMES = ("A_0001.png", "A_0002.png", "B_0001.png", "B_0002.png")


def data_root(place: Path) -> None:
    """What named benchmarks read below a data root; lists and images of the sets that search."""
    for who in ("A", "B", "C"):
        for i in (1, 2):
            image_file(place / f"lfw/images/{who}/{who}_{i:04d}.png", ord(who) + i)
    blufr_file(place / "lfw")
    (place / "lfw/blufr.mat").rename(place / "lfw/blufr_lfw_config.mat")
    mega = place / "megaface"
    sought, others = ["A/A_1.png", "A/A_2.png", "B/B_1.png", "B/B_2.png"], ["107/a/1.jpg", "107/b/2.jpg"]
    for part, paths in (("facescrub", sought), ("megaface", others)):
        for i, path in enumerate(paths):
            image_file(mega / f"{part}_images/{path}", i)
            megaface.write_feature(mega / f"{part}/{path}_x.bin", np.arange(4) + i)
    lists = mega / "templatelists"
    megaface.write_feature_list(lists / "facescrub_features_list.json", sought, ["A", "A", "B", "B"])
    megaface.write_feature_list(lists / "megaface_features_list.json_1000000_1", others)
    (mega / "facescrub_noises.txt").write_text("C_9.png\n")
    (mega / "megaface_noises.txt").write_text("107/b/2.jpg\n")


def cached_index(place: Path) -> None:
    """A set of records, and its index under a name that can be damaged."""
    record_file(place)
    with cache_in(place):
        RecordSet(place / "a.rec")
        (made,) = cache_folder("recordio").iterdir()
        made.rename(place / "index")


def stopped(form: str) -> Callable[[Path], None]:
    """What a conversion leaves that was stopped after some marks, beside the set and what it should have become."""

    def make(place: Path) -> None:
        for i in range(6):
            image_file(place / "faces" / "ab"[i % 2] / f"{i}.png", i)

        def stop(done: int, total: int) -> None:
            if done == 5:
                raise InterruptedError

        with cache_in(place):
            convert(folder.FolderSet(place / "faces"), place / "whole", form, every=2, shard_images=2)
            with suppress(DataError):
                convert(folder.FolderSet(place / "faces"), place / "out", form, every=2, shard_images=2, progress=stop)
        (place / "out.partial").rename(place / "left")

    return make


def mat_element(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(4, "little") + len(data).to_bytes(4, "little") + data + bytes(-len(data) % 8)


def mat_matrix(kind: int, shape: tuple[int, int], name: str, body: bytes) -> bytes:
    head = mat_element(6, kind.to_bytes(8, "little")) + mat_element(5, np.array(shape, "<i4").tobytes())
    return mat_element(14, head + mat_element(1, name.encode()) + body)


def mat_file(path: Path, kind: str, names: Sequence[str], packed: bool) -> None:
    import zlib

    cells = b"".join(mat_matrix(4, (1, len(n)), "", mat_element(16, n.encode())) for n in names)
    numbers = mat_element(9, np.arange(1, len(names) + 1, dtype="<f8").tobytes())
    variables = [
        mat_matrix(1, (len(names), 1), f"{kind}_set", cells),
        mat_matrix(6, (len(names), 1), f"{kind}_ids", numbers),
    ]
    if packed:
        variables = [
            (15).to_bytes(4, "little") + len(small).to_bytes(4, "little") + small
            for small in map(zlib.compress, variables)
        ]
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(variables))


def tinyface_folder(folder: Path) -> None:
    for packed, name in ((False, "plain"), (True, "packed")):
        place = folder / name
        (place / "Gallery_Distractor").mkdir(parents=True)
        (place / "Gallery_Distractor" / "d.jpg").write_bytes(b"")
        mat_file(place / "gallery_match_img_ID_pairs.mat", "gallery", ["g1.jpg", "g2.jpg"], packed)
        mat_file(place / "probe_img_ID_pairs.mat", "probe", ["p1.jpg", "p2.jpg"], packed)


def lmdb_folder(layout: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import lmdb

        records: dict[bytes, bytes] = {}
        for i in range(6):
            # One image is longer than a page holds.
            image = picture(i) + (b"\0" * 3000 if i == 3 else b"")
            if layout == "pickle":
                records[b"%d" % i] = pickle.dumps((image, i % 2), protocol=4)
                records[b"__keys__"] = pickle.dumps([b"%d" % k for k in range(6)])
            elif layout == "datum":
                size = bytes([len(image) & 127 | 128, len(image) >> 7])
                records[b"%08d_x" % i] = b"\x08\x03\x10\x08\x18\x08\x22" + size + image + bytes([0x28, i % 2])
            else:
                records[b"image-%09d" % i], records[b"label-%09d" % i] = image, b"%d" % (i % 2)
        with lmdb.open(str(folder / "db"), map_size=1 << 20) as env, env.begin(write=True) as out:
            for key, value in records.items():
                out.put(key, value)
        (folder / "db" / "lock.mdb").unlink()

    return make


def tar_shard(form: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with tarfile.open(folder / "a.tar", "w", format=form) as out:
            for i in range(3):
                name = f"{'d' * 110 if i == 2 else 'd'}/{i}"
                label = (f"{name}.json", json.dumps({"label": i}).encode()) if i else (f"{name}.cls", b"0")
                for file, data in ((f"{name}.png", picture(i)), label):
                    info = tarfile.TarInfo(file)
                    info.size = len(data)
                    out.addfile(info, io.BytesIO(data))

    return make


def parquet_file(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = {"image": [picture(0), picture(1)], "identity": ["a", "b"]}
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "a.parquet", compression="none")
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "b.parquet", compression="snappy", use_dictionary=False)


@lru_cache
def small_model() -> Model:
    torch.manual_seed(0)
    return Model.create(
        "small_iresnet",
        dim=4,
        input_size=(16, 16),
        preprocessing=Preprocessing(size=(16, 16)),
        blocks=[1, 1, 1, 1],
        widths=[1, 1, 1, 1],
        info={"note": "made"},
    )


def weights(folder: Path) -> None:
    state = small_model().backbone.state_dict()
    torch.save(state, folder / "zip.pt")
    torch.save({"epoch": 3, "backbone": {f"module.{k}": v for k, v in state.items()}}, folder / "nest.ckpt")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_model(folder / "model.safetensors", small_model())


def embeddings_file(folder: Path) -> None:
    vectors = np.eye(3, 4, dtype=np.float32)
    norms, labels, readable = np.ones(3, np.float32), np.arange(3, dtype=np.int64), np.ones(3, np.bool_)
    Embeddings(vectors, norms, labels, ["a", "b", "c"], readable, {"flip": "none"}).save(folder / "e.safetensors")


def truth_folder(folder: Path) -> None:
    for k in range(4):
        place = folder / "faces" / "ab"[k // 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k}.png").write_bytes(picture(k))
    lines = [f"{'ab'[k // 2]}/{k}.png,{'ab'[k // 2]},{'abab'[k]}" for k in range(4)]
    (folder / "truth.csv").write_text("\n".join(["path,identity,shows", *lines]) + "\n")
    (folder / "identities.csv").write_text("identity,twin_of\na,\nb,a\n")


def run_folder(folder: Path) -> None:
    save_results(folder, [_judged()], model="made")
    config = {"data": {"kind": "folder", "roots": "faces"}, "optim": {"lr": 0.1}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    events = [
        {"event": "step", "step": 1, "epoch": 0.5, "loss": 1.0, "lr": 0.1, "statistics": {"rank": 2.0}},
        {"event": "evaluation", "step": 2, "epoch": 1.0, "results": {"toy": {"accuracy": 0.5}}},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    (folder / "summary.json").write_text(json.dumps({"steps": 2}))
    (folder / "faults.jsonl").write_text(json.dumps({"sample_id": 1, "name": "x"}) + "\n")
    (folder / "similarities.json").write_text(json.dumps({"bins": [-1, 0, 1], "counts": {"positives": [1, 2]}}))
    histograms = {"edges": [-1, 0, 1], "samples": {"s": [1, 2]}, "positives": [1, 2], "negatives": [3, 4]}
    one = {"name": "toy", "wdfs": 0.5, "samples": [], "histograms": histograms}
    (folder / "diagnosis.json").write_text(json.dumps({"sets": [one]}))
    tensors = {"backbone/w": torch.arange(6.0).view(3, 2), "random/cpu": torch.zeros(1, 8, dtype=torch.uint8)}
    values = {"counters": {"step": 1}, "config": {"seed": 0}, "data": "abc"}
    save_checkpoint(folder, 1, RunState(tensors, values, Identities(["a", "b"], [2, 3])))


def _judged() -> Result:
    vectors = np.random.default_rng(0).normal(size=(12, 4))
    pairs_of_rows = np.array([(i, j) for i in range(12) for j in range(i)])
    return judge_pairs("toy", vectors, pairs_of_rows, pairs_of_rows[:, 0] % 3 == pairs_of_rows[:, 1] % 3)


def recipe(folder: Path) -> None:
    shutil.copy(Path(__file__).resolve().parents[2] / "recipes" / RECIPE, folder / "a.yaml")


RECIPE = "arcface-unpg-split-a-cpu.yaml"


def study_file(folder: Path) -> None:
    arms = {"arcface": {"trials": [{"loss": {"s": 24}}]}, "unpg": {"of": "arcface", "set": {"unpg": {"weight": 0.5}}}}
    told = {
        "name": "a",
        "base": {"data": {"kind": "synthetic", "identities": 3, "views": 2}, "loss": {"kind": "arcface"}},
        "seeds": [0, 1],
        "arms": arms,
    }
    told |= {"benchmarks": ["lfw"], "primary": "lfw/accuracy", "tuning": {"figure": "eer"}}
    (folder / "a.yaml").write_text(yaml.safe_dump(told))


def study_results(folder: Path) -> None:
    results = StudyResults(folder / "a.jsonl")
    told = {"figures": ["eer", "accuracy"], "replicates": 3, "seed": 0, "unit": "identity", "digest": "d"}
    for digest in ("one", "two"):
        scores = {"lfw": {"eer": 0.25, "accuracy": None}}
        line = {"arm": "x", "seed": 0, "diverged": "", "scores": scores, "intervals": {"lfw": told}}
        results.append({"study": "a", "trial": None, "digest": digest, **line})
    (folder / "a").mkdir()
    for digest in ("one", "two"):
        np.savez_compressed(folder / "a" / f"{digest}.npz", lfw=np.zeros((3, 2), np.float32))


def read_study_results(place: Path) -> None:
    results = StudyResults(place / "a.jsonl")
    each(*(partial(results.replicates, digest, name) for digest in results.lines for name in ("lfw", "cfp")))


def study_diagnoses(folder: Path) -> None:
    names = ("CLPG", "MLPG", "filtered")
    one = {
        "similarities": {"overlap": 0.25, "violation": 0.125},
        "samples": {name: {"tail_density": 1.0, "class_share": 0.5} for name in names},
        "histograms": {name: [1.0] * 128 for name in ("negatives", *names)},
    }
    (folder / "a.diagnosis.json").write_text(json.dumps({"one": one, "two": one}))


def known_list(folder: Path) -> None:
    (folder / "known.tsv").write_text("a\tb\thow\n# seen\nann\tbob\tname twin\ncid\tdan\n")


@contextmanager
def cache_in(place: Path) -> Iterator[None]:
    """Indices are kept below ``place`` meanwhile."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(place / "cache")
    try:
        yield
    finally:
        shutil.rmtree(place / "cache", ignore_errors=True)
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


# --- what is read ----------------------------------------------------------------------------------------------------


def look(images: object) -> None:
    """All that a program asks of an image set; an image that cannot be read does not hide the next."""
    for i in range(min(len(images), 8)):  # type: ignore[arg-type]
        images.name(i)
        with suppress_ours():
            images.read(i)
        if hasattr(images, "content"):
            with suppress_ours():
                images.content(i)
    images.digest()


class suppress_ours:
    """Like ``suppress``, but the error is judged all the same."""

    seen: list[UnpgError] = []  # noqa: RUF012

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, UnpgError):
            self.seen.append(error)
            return True
        return False


def each(*reads: Callable[[], object]) -> None:
    """All of ``reads``, though some raise; their errors are judged."""
    for read in reads:
        with suppress_ours():
            read()


def read_records(place: Path) -> None:
    with suppress_ours():
        file = RecordFile(place / "a.rec")
        for offset in file.scan()[:8].tolist():
            with suppress_ours():
                file.record(offset)
    try:
        look(RecordSet(place / "a.rec"))
    finally:
        shutil.rmtree(cache_folder(), ignore_errors=True)


def read_names(place: Path) -> None:
    each(
        lambda: names_file.read_names(place / "list.json"),
        lambda: names_file.parse_names((place / "list.json").read_bytes(), str(place / "list.json")),
        lambda: names_file.read_folder_names(place / "people" / names_file.NAMES_FILE),
        lambda: look(folder.FolderSet(place / "people")),
    )


def read_cached_index(place: Path) -> None:
    """A damaged index is made again, and what comes of it is as ever."""
    with cache_in(place):
        RecordSet(place / "a.rec")
        (kept,) = cache_folder("recordio").iterdir()
        shutil.rmtree(kept)
        shutil.copytree(place / "index", kept)
        sound = load_index("recordio", kept.name, check=True) is not None
        load_index("recordio", kept.name, check=False)
        found = RecordSet(place / "a.rec")
        look(found)
        assert (found.identities, found.labels.tolist()) == (["Zoë", "\udcff/b"], [0, 0, 1, 1])
        assert load_index("recordio", kept.name, check=True) is not None
    if not sound:
        with suppress_ours():
            raise DataError(f"{place}: the index was refused, and made again.")


def read_stopped(place: Path, form: str, *, forged: bool) -> None:
    """The conversion goes on. Unless somebody has made the checksums fit, it ends as ever, or is refused."""
    for name in ("out.partial", "out"):
        shutil.rmtree(place / name, ignore_errors=True)
    shutil.copytree(place / "left", place / "out.partial")
    outside = place / "outside"
    outside.write_bytes(b"")
    with cache_in(place):
        try:
            convert(folder.FolderSet(place / "faces"), place / "out", form, every=2, shard_images=2)
        finally:
            assert outside.read_bytes() == b""
    if form == "lmdb":  # what stands between the records may be anything
        with cache_in(place):
            found = LmdbSet(place / "out")
            if not forged:
                assert [found.content(i) for i in range(6)] == [picture(i) for i in (0, 2, 4, 1, 3, 5)]
                assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
        close_databases()
    elif not forged:
        assert tree(place / "out") == tree(place / "whole")


def tree(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def read_data_root(place: Path) -> None:
    mega = place / "megaface"
    each(
        *(lambda n=n: look(open_benchmark(n, place).images) for n in ("megaface", "megaface-refined", "blufr")),
        *(
            lambda n=n: judge_megaface_features(n, mega / "facescrub", mega / "megaface", "_x.bin", place)
            for n in ("megaface", "megaface-refined")
        ),
    )


def read_stretched(place: Path) -> None:
    found = StretchedSet(str(place / "list"), place, ["a.png", "b.jpg"], ["a", "b"], (16, 16))
    look(found)


def stretched_files(place: Path) -> None:
    image_file(place / "a.png", 1)
    image_file(place / "b.jpg", 2, "JPEG")


def read_bins(place: Path) -> None:
    found = bins.BinPairs(place / "a.bin")
    look(found.images)


def read_pickles(place: Path) -> None:
    for file in sorted(place.glob("*.pkl")):
        with suppress_ours():
            found = bins.parse_pickle(file.read_bytes(), str(file))
            images = found[0] if isinstance(found, tuple) and found else found
            for image in images if isinstance(images, list) else [images]:
                with suppress_ours():
                    bins.image_file(image, str(file))


def look_pairs(found: pairs.PairList) -> None:
    found.digest()
    found.summary()
    look(pairs.PairImages(found))


def read_ijb(place: Path) -> None:
    each(
        lambda: ijb.read_ijb(place, "ijbc").summary(),
        lambda: ijb.read_template_pairs(place / "ijbc_template_pair_label.txt", np.array([3, 11, 20]), block=64),
        lambda: ijb.read_face_points(place / "ijbc_name_5pts_score.txt", block=256),
        lambda: ijb.read_image_list(place / "img.list"),
        lambda: ijb.read_template_images(place / "ijbc_face_tid_mid.txt", block=64),
        lambda: ijb.read_template_subjects(place / "ijbc_1N_gallery_G1.csv", np.array([3, 11, 20])),
    )


def read_megaface(place: Path) -> None:
    each(
        lambda: megaface.read_feature(place / "A/0.png_x.bin"),
        lambda: megaface.read_features(place, megaface.read_feature_list(place / "list.json").paths, "_x.bin"),
        lambda: megaface.read_facescrub_noises(place / "facescrub.txt"),
        lambda: megaface.read_megaface_noises(place / "megaface.txt"),
    )


def read_tinyface(place: Path) -> None:
    each(
        *(
            lambda p=place / name: (
                mat5.read_mat5(p / "probe_img_ID_pairs.mat"),
                tinyface.read_tinyface(p),
            )
            for name in ("plain", "packed")
        )
    )


def read_lmdb(place: Path) -> None:
    try:
        look(LmdbSet(place / "db"))
    finally:
        close_databases()


def close_databases() -> None:
    for *_, opened in _open.values():
        opened.close()
    _open.clear()


def read_weights(place: Path, name: str) -> None:
    file, wanted = place / name, Preprocessing(size=(16, 16))
    shape = {"blocks": [1, 1, 1, 1], "widths": [1, 1, 1, 1]}
    each(
        lambda: read_state_dict(file),
        lambda: import_weights(file, kind="small_iresnet", dim=4, preprocessing=wanted, settings=shape),
        *([lambda: load_model(file)] if name == "model.safetensors" else []),
    )


def read_presets(place: Path) -> None:
    each(*(lambda p=p: import_weights(place / "mbf.pt", preset=p) for p in ("insightface-mbf", "insightface-iresnet")))


def mbf_like(place: Path) -> None:
    """The names by which a preset reads sizes off a state dict; not a whole network."""
    state = {"layers.0.layers.0.weight": torch.ones(64, 1), "features.layers.2.weight": torch.ones(2, 3)}
    state |= {f"layers.{part}.layers.0.layers.0.layers.0.weight": torch.ones(1) for part in (1, 3, 5, 7)}
    torch.save(state, place / "mbf.pt")


def read_recipe(place: Path) -> None:
    to_dict(from_yaml(TrainConfig, place / "a.yaml"))


def read_run(place: Path) -> None:
    each(
        lambda: settings(load_run(place)),
        lambda: load_results(place),
        lambda: load_diagnosis(place),
    )


def read_log(place: Path) -> None:
    each(lambda: MetricsLog(place, keep_until=1).close(), lambda: write_faults(place, []))


def read_checkpoint(place: Path) -> None:
    newest = latest_checkpoint(place)
    assert newest is not None
    load_checkpoint(newest)


def read_checkpoint_tensors(place: Path) -> None:
    """Past the checksums, as if whoever changed the files had changed those too."""
    newest = latest_checkpoint(place)
    assert newest is not None
    read_tensors(newest, rows=lambda name, size: None, wanted=lambda name: True)


def read_sources(place: Path) -> None:
    each(
        lambda: look(open_source(place / "a.txt")),
        lambda: look(open_source(place / "a.csv")),
        lambda: look(folder.FolderSet(place / "images")),
        lambda: look(YaleBSet(place / "images")),
        lambda: folder.FolderSet(place / "images", place / "people.txt", allow_missing=True),
    )


# --- words of the formats --------------------------------------------------------------------------------------------

_DEEP = b"(" * 2000 + b"t" * 2000
# Thirty levels that hold the one below twice: a list of 2**30 leaves in a hundred bytes.
_LAUGHS = b"]" + b"".join(b"\x94h%c" % i + b"h%c\x86" % i for i in range(30))
PICKLE = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n"),
    *(b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"c__builtin__\nbytes\n", b"\x8c\x02os\x8c\x06system\x93"),
    *(b"R", b"b", b"o", b"i", b"\x81", b"\x92", b"Q", b"P0\n", b"\x82\x01", b"\x84\xff\xff\xff\x7f"),
    *(b"r\xff\xff\xff\x7f", b"r\xff\xff\xff\xff", b"q\x05", b"j\xff\xff\xff\x7f", b"\x94", b"p2147483646\n"),
    *(b"B\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 7 + b"\x7f", b"\x96" + b"\0\0\0\0\1\0\0\0", b"\x8d" + b"\xff" * 8),
    *(b"\x8b\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"\x95" + b"\xff" * 7 + b"\x7f", b"I" + b"9" * 5000 + b"\n"),
    *(_DEEP, _LAUGHS, _LAUGHS + b"}h\x1dNs", _LAUGHS + b"\x85R", b"]\x94h\0a", b"2" * 50, b"}(", b"\x8f(", b"\x91"),
    *(
        b"K\x01",
        b"N",
        b"\x88",
        b")",
        b"]",
        b"}",
        b"(",
        b"t",
        b"l",
        b"\x85",
        b"\x86",
        b"\x87",
        b"a",
        b"e",
        b"s",
        b"u",
        b".",
    ),
    *(b"cnumpy\ndtype\nN\x85R", b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R", b"cbuiltins\ngetattr\n"),
)
TORCH = (
    *PICKLE,
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_parameter\n"),
    *(b"ctorch._utils\n_rebuild_sparse_tensor\n", b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n", b"Ptext\n"),
    *(
        b"PK\x01\x02",
        b"PK\x05\x06",
        b"PK\x03\x04",
        b"data.pkl",
        b"meta",
        b"cuda:0",
        b"K\0\x85",
        b"J\xff\xff\xff\x7f\x85",
    ),
)
_BILLION = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxyz", strict=True)
)
_MERGED = "a: &a {k: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [*{a}, *{a}, *{a}]}}\n" for a, b in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
)
YAML = (
    *(b"!!python/object/apply:os.system ['true']", b"!!python/name:os.system", b"!!python/object/new:int [1]"),
    *(_BILLION.encode(), _MERGED.encode(), b"data: &x\n  kind: *x\n", b"&a [*a]", b"*nobody", b"<<: *a", b"<<: 3"),
    *(b"!!timestamp x", b"2001-13-45", b"2001-01-01T25:00:00", b"!!bool x", b"!!int x", b"!!float x", b"!!binary x"),
    *(
        b"0x_",
        b"0b",
        b"1:99:99",
        b"9" * 5000,
        b".nan",
        b".inf",
        b"-.inf",
        b"1e400",
        b"~",
        b"? [a]\n: b\n",
        b"!!set {a}",
    ),
    *(b"!!omap [1]", b"!!pairs [a: 1]", b"[" * 3000, b"{" * 3000, b"? " * 1500, b"- " * 1500, b"%YAML 9.9\n---\n"),
    *(
        b"---\n",
        b"...\n",
        b"\t",
        b": ",
        b"- ",
        b"#",
        b"|\n",
        b">\n",
        b"'",
        b'"\\x',
        b'"\\ud800"',
        b"null",
        b"true",
        b"[]",
        b"{}",
    ),
)
TENSORS = (
    *(b'{"', b'"data_offsets":[0,0]', b'"data_offsets":[0,18446744073709551615]', b'"shape":[4294967296,4294967296]'),
    *(b'"shape":[]', b'"shape":[-1]', b'"dtype":"F64"', b'"dtype":"F8_E4M3"', b'"__metadata__":{}', b"[" * 5000),
    *(b"unpg.model", b'\\"dim\\": 1000000000', b'\\"input_size\\": [100000, 100000]', b'\\"dim\\": 1e308', b"NaN"),
    *(b'\\"blocks\\": [1, 1, 1, 100000000]', b'\\"widths\\": [1, 1, 1, 1000000]', b'\\"kind\\": []', b'\\"kind\\": {}'),
)
_TAR = (
    b"././@PaxHeader",
    b"ustar\0",
    b"ustar  \0",
    b"L",
    b"x",
    b"g",
    b"2",
    b"30 size=99999999999999999999\n",
    b"\x80" + b"\xff" * 11,
)

# --- the table -------------------------------------------------------------------------------------------------------

_JSON = (
    *TEXTS,
    b"[" * 5000,
    b'{"a":' * 5000,
    b"NaN",
    b"null",
    b"9" * 5000,
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"-1",
    b"1.5",
)
_REC = ("RecordSet", "RecordFile", "read_index", "unpack")


def _image(form: str, count: int, repair: Callable[[bytes], bytes] | None = None) -> Reader:
    return Reader(
        f"image-{form.lower()}",
        lambda place: image_file(place / "a.img", 7, form),
        lambda place: each(
            lambda: decode(place / "a.img"),
            lambda: decode((place / "a.img").read_bytes(), name=str(place / "a.img")),
            lambda: decode_sized(
                file_content(place / "a.img", str(place / "a.img")), (8, 8), lambda: str(place / "a.img"), "the first"
            ),
            lambda: image_ending((place / "a.img").read_bytes()),
        ),
        ["a.img"],
        ["decode", "decode_sized", "file_content", "image_ending"],
        tokens=(
            b"\xff\xd8\xff",
            b"\xff\xc0",
            b"IHDR",
            b"IDAT",
            b"iCCP",
            b"zTXt",
            b"VP8X",
            b"VP8L",
            b"BM",
            b"II*\0",
            b"P6\n",
        ),
        repair=repair,
        count=count,
    )


READERS = (
    Reader(
        "rec",
        record_file,
        read_records,
        ["a.rec", "a.rec", "a.idx", "a.lst", "a.identities.json"],
        (*_REC, "read_names"),
        count=6000,
    ),
    Reader("rec-scan", records_without_index, read_records, ["a.rec"], _REC, count=3000),
    Reader(
        "names",
        names_files,
        read_names,
        [f"people/{names_file.NAMES_FILE}", "list.json"],
        ["parse_names", "read_names", "read_folder_names"],
        _JSON,
        count=2000,
    ),
    Reader(
        "index cache",
        cached_index,
        read_cached_index,
        ["index/meta.json", "index/rows.npy"],
        ["load_index"],
        (*_JSON, b"../", b'"<i8"', b'"|O"', b"\x93NUMPY", b"'shape': (99999999999,)", b"'descr': '|O'"),
        count=2000,
    ),
    *(
        Reader(
            f"convert {form}{' forged' if forged else ''}",
            stopped(form),
            partial(read_stopped, form=form, forged=forged),
            [
                f"left/{file}"
                for file in ("job.json", "journal.jsonl", "journal.jsonl", data)[forged : 3 + (not forged)]
            ],
            ["convert", "Journal", FORMS[form].__name__],
            (*_JSON, b'"../../outside"', b'"../outside"', b'"."', b'"job.json"'),
            repair_journal if forged else None,
            count=500,
            mends=forged,
        )
        for form, data in (
            ("recordio", "train.rec"),
            ("webdataset", "train-000001.tar"),
            ("parquet", "part-00001.parquet"),
            ("lmdb", "data.mdb"),
        )
        for forged in (False, True)
    ),
    *(
        Reader(
            f"convert {form}",
            stopped(form),
            partial(read_stopped, form=form, forged=False),
            ["left/job.json", f"left/{data}"],
            ["convert", FORMS[form].__name__],
            _JSON,
            count=500,
        )
        for form, data in (("folder", "a/2.png"), ("csv", "images/a/2.png"))
    ),
    Reader(
        "truth",
        truth_folder,
        lambda place: read_truth(place / "truth.csv", folder.FolderSet(place / "faces")),
        ["truth.csv", "identities.csv"],
        ["read_truth"],
        TEXTS,
    ),
    Reader(
        "bin",
        lambda place: bins.write_bin(place / "a.bin", [picture(i) for i in range(4)], [True, False]),
        read_bins,
        ["a.bin"],
        ["BinPairs", "read_bin"],
        PICKLE,
        count=4000,
    ),
    Reader(
        "pickle",
        pickles,
        read_pickles,
        [f"{p}.pkl" for p in range(5)],
        ["parse_pickle", "image_file"],
        PICKLE,
        count=9000,
    ),
    _image("PNG", 4000, repair_png),
    _image("JPEG", 4000),
    _image("WEBP", 4000),
    _image("BMP", 3000),
    _image("TIFF", 3000),
    _image("PPM", 2000),
    Reader(
        "recipe",
        recipe,
        read_recipe,
        ["a.yaml"],
        ["read_yaml", "from_yaml", "parse_yaml", "load_yaml"],
        YAML,
        count=3000,
    ),
    Reader("study", study_file, lambda place: read_study(place / "a.yaml"), ["a.yaml"], ["read_study"], YAML),
    Reader("study results", study_results, read_study_results, ["a.jsonl", "a/one.npz"], ["Results", "read_arrays"]),
    Reader(
        "study diagnoses",
        study_diagnoses,
        lambda place: read_diagnoses(place / "a.diagnosis.json"),
        ["a.diagnosis.json"],
        ["read_diagnoses"],
    ),
    Reader(
        "lfw",
        lfw_list,
        lambda place: look_pairs(pairs.lfw_pairs(place / "pairs.txt", place / "images", ext="png")),
        ["pairs.txt"],
        ["lfw_pairs", "read_lines"],
        count=3000,
    ),
    Reader(
        "cfp",
        cfp_lists,
        lambda place: look_pairs(pairs.cfp_pairs(place / "protocol", "FP")),
        [
            "protocol/Pair_list_F.txt",
            "protocol/Pair_list_P.txt",
            "protocol/Split/FP/01/same.txt",
            "protocol/Split/FP/02/diff.txt",
        ],
        ["cfp_pairs"],
    ),
    Reader(
        "calfw",
        calfw_list,
        lambda place: look_pairs(pairs.flat_pairs(place / "list.txt", place / "images", name="calfw")),
        ["list.txt"],
        ["flat_pairs", "read_lines"],
        count=2000,
    ),
    Reader(
        "blufr",
        blufr_file,
        lambda place: blufr.read_blufr(place / "blufr.mat", BLUFR_NAMES),
        ["blufr.mat"],
        ["read_blufr"],
        count=3000,
    ),
    Reader("stretched", stretched_files, read_stretched, ["a.png", "b.jpg"], ["StretchedSet"], count=1000),
    Reader(
        "data root",
        data_root,
        read_data_root,
        [
            "megaface/templatelists/facescrub_features_list.json",
            "megaface/templatelists/megaface_features_list.json_1000000_1",
            "megaface/facescrub_noises.txt",
            "megaface/megaface_noises.txt",
            "megaface/facescrub/A/A_1.png_x.bin",
            "megaface/megaface/107/a/1.jpg_x.bin",
            "lfw/blufr_lfw_config.mat",
        ],
        ["open_benchmark", "judge_megaface_features"],
        _JSON,
        count=1500,
    ),
    Reader(
        "csv-pairs",
        csv_list,
        lambda place: look_pairs(pairs.csv_pairs(place / "pairs.csv")),
        ["pairs.csv"],
        ["csv_pairs", "csv_rows"],
        count=3000,
    ),
    Reader(
        "lists",
        image_lists,
        lambda place: each(
            lambda: look(listed.list_set(place / "a.txt")),
            lambda: look(listed.csv_set(place / "a.csv")),
            lambda: exclude.read_identity_list(place / "people.txt"),
            lambda: exclude.read_identity_list(f"{place}/people.tsv#other"),
        ),
        ["a.txt", "a.csv", "people.txt", "people.tsv"],
        ["list_set", "csv_set", "read_identity_list"],
        count=4000,
    ),
    Reader(
        "sources",
        image_lists,
        read_sources,
        ["a.txt", "a.csv", "people.txt", "images/A/A_0001.png", "images/B/B_0002.png"],
        ["open_source", "FolderSet", "YaleBSet"],
        count=2000,
    ),
    Reader(
        "kface",
        kface_tree,
        lambda place: each(
            lambda: look(kface.KFaceSet(place / "k", "s1 l1 e1 c4~5", place / "test.txt")),
            lambda: look_pairs(kface.kface_pairs(place / "Q.txt", place / "k")),
            lambda: look_pairs(kface.kface_pairs(place / "short.txt", place / "k", condition="s1 l1 e1")),
        ),
        ["test.txt", "Q.txt", "short.txt", "k/p1/S001/L1/E01/C4.jpg"],
        ["KFaceSet", "kface_pairs"],
    ),
    Reader(
        "rfw",
        rfw_tree,
        lambda place: each(lambda: rfw.rfw_bins(place), lambda: look_pairs(rfw.rfw_pairs(place, "African"))),
        ["txts/African/African_pairs.txt", "African_test.bin"],
        ["rfw_bins", "rfw_pairs"],
        PICKLE,
        count=2000,
    ),
    Reader(
        "ijb",
        ijb_lists,
        read_ijb,
        [
            "ijbc_face_tid_mid.txt",
            "ijbc_template_pair_label.txt",
            "ijbc_name_5pts_score.txt",
            "img.list",
            "ijbc_1N_gallery_G1.csv",
            "ijbc_1N_probe_mixed.csv",
        ],
        [
            "read_ijb",
            "read_template_images",
            "read_template_pairs",
            "read_face_points",
            "read_image_list",
            "read_template_subjects",
            "text_blocks",
            "count_lines",
        ],
        count=4000,
    ),
    Reader(
        "megaface",
        megaface_files,
        read_megaface,
        ["A/0.png_x.bin", "list.json", "facescrub.txt", "megaface.txt"],
        ["read_feature", "read_features", "read_feature_list", "read_facescrub_noises", "read_megaface_noises"],
        count=6000,
    ),
    Reader(
        "tinyface",
        tinyface_folder,
        read_tinyface,
        ["plain/gallery_match_img_ID_pairs.mat", "plain/probe_img_ID_pairs.mat", "packed/probe_img_ID_pairs.mat"],
        ["read_tinyface", "read_mat5"],
        count=5000,
    ),
    *(
        Reader(
            f"lmdb-{layout}",
            lmdb_folder(layout),
            read_lmdb,
            ["db/data.mdb"],
            ["LmdbSet", "check_lmdb_pages"],
            PICKLE if layout == "pickle" else (),
            count=2500,
        )
        for layout in ("pickle", "datum", "parts")
    ),
    *(
        Reader(
            f"tar-{name}",
            tar_shard(form),
            lambda place: look(TarSet(place / "a.tar")),
            ["a.tar"],
            ["TarSet", "tar_members"],
            _TAR,
            repair_tar,
            count=3000,
        )
        for name, form in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT))
    ),
    Reader(
        "parquet",
        parquet_file,
        lambda place: each(
            lambda: look(ParquetSet(place / "a.parquet")), lambda: look(ParquetSet(place / "b.parquet"))
        ),
        ["a.parquet", "b.parquet"],
        ["ParquetSet"],
        count=3000,
    ),
    *(
        Reader(
            f"weights-{file}",
            weights,
            partial(read_weights, name=file),
            [file],
            ["read_state_dict", "import_weights", "load_model", "read_torch"],
            tokens,
            count=2000,
        )
        for file, tokens in (
            ("zip.pt", TORCH),
            ("nest.ckpt", TORCH),
            ("legacy.pth", TORCH),
            ("model.safetensors", TENSORS),
        )
    ),
    Reader("presets", mbf_like, read_presets, ["mbf.pt"], ["import_weights"], TORCH, count=800, whole=False),
    Reader(
        "embeddings",
        embeddings_file,
        lambda place: Embeddings.load(place / "e.safetensors"),
        ["e.safetensors"],
        ["Embeddings.load", "read_tensors"],
        TENSORS,
        count=4000,
    ),
    Reader(
        "checkpoint",
        run_folder,
        read_checkpoint,
        [f"checkpoints/step-00000001/{name}" for name in ("manifest.json", "values.json", "identities.json")],
        ["load_checkpoint", "latest_checkpoint", "checkpoint_fault"],
        (*TEXTS, b"[" * 5000, b'{"a":' * 5000, b"NaN", b"null", b"9" * 5000),
    ),
    Reader(
        "checkpoint tensors",
        run_folder,
        read_checkpoint_tensors,
        ["checkpoints/step-00000001/.metadata", "checkpoints/step-00000001/__0_0.distcp"],
        ["read_tensors"],
        TORCH,
    ),
    Reader(
        "run",
        run_folder,
        read_run,
        [
            "results.json",
            "config.yaml",
            "metrics.jsonl",
            "summary.json",
            "faults.jsonl",
            "similarities.json",
            "diagnosis.json",
            "scores/toy.npz",
        ],
        ["load_run", "load_results", "load_diagnosis", "read_json_object", "parse_json"],
        (*YAML, *TEXTS, b"[" * 5000, b'{"a":' * 5000, b"NaN", b"null", b"9" * 5000),
        count=4000,
    ),
    Reader("log", run_folder, read_log, ["metrics.jsonl", "faults.jsonl"], ["MetricsLog", "write_faults"], count=1000),
    Reader(
        "known", known_list, lambda place: read_known(place / "known.tsv"), ["known.tsv"], ["read_known"], count=2000
    ),
)
