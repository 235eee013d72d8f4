"""Made-up runs of the right shape and size. The figures mean nothing; results come from drawn embeddings."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpg.evaluate import (
    Bootstrap,
    IdentificationResult,
    TemplateResult,
    gallery_rates,
    hardest_pairs,
    judge_all_pairs,
    judge_groups,
    judge_pairs,
    pair_scores,
    save_results,
    search,
)
from unpg.evaluate.hardest import named_pairs

CONFIG = """\
seed: 1
data:
  train: [celeba288, cfp]
  size: [112, 112]
backbone: {{kind: iresnet18, dim: 128}}
loss:
  base: arcface
  s: 32.0
  m: 0.3
  unpg: {unpg}
optim: {{kind: sgd, lr: {lr}, momentum: 0.9, weight_decay: 0.0005}}
epochs: 24
"""


def write_run(folder: Path, *, unpg: bool, seed: int, steps: int = 900, spread: float = 1.15) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(unpg="{r: 1.5, start: 8}" if unpg else "null", lr=0.1))
    with (folder / "metrics.jsonl").open("w") as log:
        for step in range(0, steps, 2):
            epoch = 24 * step / steps
            on = unpg and epoch >= 8
            offered, kept = (32640, int(32640 * rng.normal(0.962, 0.004))) if on else (0, 0)
            batch = 0.55 * (1 - np.exp(-(epoch - 8) / 3)) + rng.normal(0, 0.01) if on else 0.0
            target = 0.9 * (1 - np.exp(-epoch / 9))
            statistics = {
                "negatives/offered": offered,
                "negatives/kept": kept,
                "negatives/cut": offered - kept,
                "fence/lower": -0.31,
                "fence/upper": 0.36,
                "share/target": target,
                "share/classes": (1 - target) * (1 - batch),
                "share/batch": (1 - target) * batch,
                "cosine/pairwise": 0.35 * np.exp(-epoch / 2) + 0.05 + rng.normal(0, 0.005) + 0.03 * on,
            }
            log.write(
                json.dumps(
                    {
                        "event": "step",
                        "step": step,
                        "epoch": epoch,
                        "loss": 11 * np.exp(-epoch / 6) + 1.2 * on + rng.normal(0, 0.15) + 1,
                        "lr": 0.05 * (1 + np.cos(np.pi * epoch / 24)),
                        "images_per_second": 310.0,
                        "statistics": statistics,
                    }
                )
                + "\n"
            )
            if step % 150 == 0:
                lfw = {"accuracy": 0.86 - 0.3 * np.exp(-epoch / 5), "eer": 0.14}
                log.write(
                    json.dumps({"event": "evaluation", "step": step, "epoch": epoch, "results": {"lfw": lfw}}) + "\n"
                )
    (folder / "summary.json").write_text(
        json.dumps(
            {
                "seconds": 712.4,
                "images_per_second": 312.25,
                "parameters": 1_234_567,
                "versions": {"unpg": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.2"},
                "device": "cpu, 2 cores",
            }
        )
    )
    (folder / "faults.jsonl").write_text('{"image": "a/b.jpg", "error": "cut short"}\n' if unpg else "")
    write_similarities(folder / "similarities.json", rng, unpg=unpg)
    write_results(folder, rng, spread)
    return folder


def write_similarities(path: Path, rng: np.random.Generator, *, unpg: bool) -> None:
    bins = np.linspace(-1, 1, 201)
    batch = np.concatenate([rng.normal(0.02, 0.14, 60000), rng.normal(0.62, 0.08, 500)])
    kept = batch[np.abs(batch - 0.02) < 0.38]
    draws = {
        "positives": rng.normal(0.6, 0.12, 20000),
        "class_negatives": rng.normal(0.0, 0.07, 90000),
        "batch_negatives": batch,
        "batch_negatives_kept": kept,
        "evaluation_genuine": rng.normal(0.42, 0.17, 20000),
        "evaluation_impostor": rng.normal(0.04, 0.13, 200000),
    }
    counts = {name: np.histogram(np.clip(d, -1, 1), bins)[0].tolist() for name, d in draws.items()}
    content = {
        "bins": bins.tolist(),
        "counts": counts,
        "batches": 20,
        "benchmark": "lfw-allpairs",
        "fences": [-0.36, 0.4],
        "unified": unpg,
    }
    path.write_text(json.dumps(content))


def write_results(folder: Path, rng: np.random.Generator, spread: float, **info: object) -> None:
    labels = np.repeat(np.arange(300), 6)
    centers = rng.normal(size=(300, 32))
    vectors = (centers[labels] + spread * rng.normal(size=(1800, 32))).astype(np.float32)
    first = rng.integers(0, 300, 3000) * 6
    genuine = np.stack([first, first + rng.integers(1, 6, 3000)], 1)
    impostor = np.stack([first, (first + 6 * rng.integers(1, 299, 3000)) % 1800], 1)
    pairs, same = np.concatenate([genuine, impostor]), np.arange(6000) < 3000
    folds = np.tile(np.arange(10), 600)
    save_results(
        folder,
        [
            judge_pairs("lfw", vectors, pairs, same, folds, left_out=29),
            judge_all_pairs("lfw-allpairs", vectors, labels),
        ],
        **info,
    )


@pytest.fixture(scope="session")
def made_runs(tmp_path_factory):
    """Folders: a base, the same with UNPG, and a baseline that was only judged."""
    root = tmp_path_factory.mktemp("runs")
    base = write_run(root / "arcface", unpg=False, seed=1)
    ours = write_run(root / "arcface-unpg", unpg=True, seed=2, spread=1.08)
    pixels = root / "grey-pixels"
    write_results(pixels, np.random.default_rng(3), 2.6, model="grey pixels <32 x 32>")
    return [base, ours, pixels]


@dataclasses.dataclass(frozen=True)
class OddResult:
    """Of a kind that the report has never heard of."""

    benchmark: str = "clusters"
    protocol: str = "clustering"

    def metrics(self):
        return {"pairwise_f": 0.5}

    def to_dict(self):
        return {
            "benchmark": self.benchmark,
            "protocol": self.protocol,
            "metrics": self.metrics(),
            "clusters": [{"size": 3, "pure": True}, {"size": 5, "pure": False}],
            "linkage": None,
        }

    def arrays(self):
        return {"sizes": np.array([3, 5])}


PEOPLE, VIEWS = 60, 6


def write_every_kind(folder: Path, noise: float, *, pictures: Path | None = None, draws: int = 100) -> Path:
    """A folder of results with one benchmark of each kind."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(PEOPLE), VIEWS)
    vectors = rng.normal(size=(PEOPLE, 16))[labels] + 0.7 * rng.normal(size=(len(labels), 16))
    trouble = np.random.default_rng(round(1000 * noise)).normal(size=vectors.shape)
    # Harder images are shorter, so that their length says something.
    hard = rng.uniform(0.2, 1.0, len(labels))
    vectors = vectors + noise * hard[:, None] * trouble
    names = [str((pictures or folder) / f"person{label}" / f"{i}.png") for i, label in enumerate(labels)]
    if pictures is not None:
        for label, name in zip(labels, names, strict=True):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            grey = np.random.default_rng(label).integers(0, 255, (7, 7, 3)).astype(np.uint8)
            Image.fromarray(grey).resize((112, 112)).save(name)
    genuine = np.array([[i, i ^ 1] for i in range(0, len(labels), 2)] * 3)
    others = rng.integers(0, len(labels), (3000, 2))
    others = others[labels[others[:, 0]] != labels[others[:, 1]]]
    pairs, same = np.concatenate([genuine, others]), np.arange(len(genuine) + len(others)) < len(genuine)
    folds = rng.permutation(len(pairs)) % 5
    settings = Bootstrap(draws)
    listed = judge_pairs("list", vectors, pairs, same, folds, identities=labels).with_intervals(settings)
    length = (1.0 / hard).astype(np.float32)
    listed = dataclasses.replace(
        listed,
        quality=np.minimum(*length[pairs.T]),
        pairs=pairs.astype(np.int32),
        names=names,
    ).with_threshold(0.5, "people:far=0.001", settings)
    every = judge_all_pairs("people", vectors, labels, targets=(0.1, 0.01, 1e-3, 1e-5), evidence=True)
    every = dataclasses.replace(every, hardest=named_pairs(names, *hardest_pairs(vectors, labels, 8)))
    results = [listed, every.with_intervals(settings), templates(vectors, labels).with_intervals(settings)]
    results += [searches(vectors, labels).with_intervals(settings), grouped(vectors, labels).with_intervals(settings)]
    save_results(
        folder,
        [*results, OddResult()],
        versions={"unpg": "0.1.0"},
        weights_digest="ab" * 32,
        data_digests={"list": "c0"},
    )
    return folder


def templates(vectors, labels):
    first, second = np.triu_indices(len(labels), 1)
    pairs = np.stack([first, second], 1)
    scores = pair_scores(vectors, pairs)
    same = labels[first] == labels[second]
    judged = judge_all_pairs("x", vectors, labels)
    return TemplateResult(
        benchmark="ijb-like",
        images=4 * len(labels),
        templates=len(labels),
        genuine=judged.genuine,
        impostor=judged.impostor,
        pooling={"preset": "insightface", "lengths": "norm", "unit_media": True},
        auc=judged.auc,
        eer=judged.eer,
        tar_at_far=judged.tar_at_far,
        edges=judged.edges,
        genuine_counts=judged.genuine_counts,
        impostor_counts=judged.impostor_counts,
        roc=judged.roc,
        scores=scores,
        same=same,
        people=labels[pairs],
    )


def searches(vectors, labels):
    enrolled = {"G1": labels < 40, "G2": labels >= 25}
    galleries = {}
    for name, members in enrolled.items():
        gallery = np.flatnonzero(members & (np.arange(len(labels)) % VIEWS == 0))
        probes = np.flatnonzero(np.arange(len(labels)) % VIEWS > 0)
        found = search(vectors[probes], labels[probes], vectors[gallery], labels[gallery])
        galleries[name] = gallery_rates(found, labels[probes], fpirs=(0.3, 0.1, 1e-3))
    return IdentificationResult("searches", galleries, distractors=7, notes=("probes are made up",))


def grouped(vectors, labels):
    groups, pairs = np.array(["Aland", "Borneo & Bali", "Corsica"])[labels % 3], []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        pairs += [(a, b) for n, a in enumerate(members) for b in members[n + 1 :]]
    pairs = np.array(pairs)
    return judge_groups(
        "places",
        pair_scores(vectors + np.where(labels % 3 == 1, 0.35, 0.0)[:, None], pairs),
        labels[pairs[:, 0]] == labels[pairs[:, 1]],
        groups[pairs[:, 0]],
        people=labels[pairs],
        target=0.01,
    )


@pytest.fixture(scope="session")
def every_kind(tmp_path_factory):
    """Folders of two models, each with one benchmark of each kind; the images of the first are there."""
    root = tmp_path_factory.mktemp("kinds")
    pictures = root / "pictures"
    return [
        write_every_kind(root / "strong", 0.2, pictures=pictures),
        write_every_kind(root / "weak & slow", 0.8, pictures=pictures),
    ]


@pytest.fixture(scope="session")
def seeds(tmp_path_factory):
    """Six run folders: two recipes with three training seeds each."""
    root = tmp_path_factory.mktemp("seeds")
    folders = []
    for recipe, unpg, noise in (("base", "null", 0.6), ("ours", "{r: 1.5, start: 8}", 0.3)):
        for seed in (1, 2, 3):
            folder = write_every_kind(root / f"{recipe}-seed{seed}", noise + 0.01 * seed)
            config = CONFIG.format(unpg=unpg, lr=0.1).replace("seed: 1", f"seed: {seed}")
            (folder / "config.yaml").write_text(config)
            steps = [{"event": "step", "step": s, "epoch": s / 10, "loss": 9 / (s + seed)} for s in range(30)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
            folders.append(folder)
    return folders
