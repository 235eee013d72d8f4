"""Made-up runs of the right shape and size. The figures mean nothing; results come from drawn embeddings."""

import json
from pathlib import Path

import numpy as np
import pytest

from unpg.evaluate import judge_all_pairs, judge_pairs, save_results

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
