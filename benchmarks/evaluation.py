"""What judging costs, on random features of the right shape: ratios to the bare product or to the field's own way.

    python benchmarks/evaluation.py [--only NAME ...] [--scale 1.0] [--out evaluation.json]

``--scale`` shrinks every count, for a quick look. Peak memory is that of a fresh process for each question.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from losses import machine

from unpg.evaluate.allpairs import all_pairs
from unpg.evaluate.curves import Roc
from unpg.evaluate.distractors import with_distractors
from unpg.evaluate.templates import pool, roc_of_cosines, template_scores

D = 512


def timed(call: Callable[[], object]) -> tuple[float, object]:
    begin = time.perf_counter()
    value = call()
    return time.perf_counter() - begin, value


def features(n: int, seed: int = 0) -> np.ndarray:
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x).numpy()


def field_pooling(x: np.ndarray, templates: np.ndarray, media: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A loop over templates and media, as evaluation scripts of the field have it."""
    ids = np.unique(templates)
    pooled = np.zeros((len(ids), x.shape[1]))
    for row, template in enumerate(ids):
        (places,) = np.where(templates == template)
        members, owned = x[places], media[places]
        parts = [members[np.where(owned == medium)].mean(axis=0, keepdims=True) for medium in np.unique(owned)]
        pooled[row] = np.concatenate(parts).sum(axis=0)
    return ids, pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def field_scores(ids: np.ndarray, pooled: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairs in batches of 100,000 through a table from id to row."""
    table = np.zeros((ids.max() + 1, 1), dtype=int)
    table[ids] = np.arange(len(ids))[:, None]
    scores = np.zeros(len(first))
    for start in range(0, len(first), 100_000):
        part = slice(start, start + 100_000)
        a, b = pooled[table[first[part]]].squeeze(1), pooled[table[second[part]]].squeeze(1)
        scores[part] = np.sum(a * b, axis=-1)
    return scores


def ijbc(scale: float) -> dict:
    """469,375 images, 23,124 templates; 15,658,489 pairs of 3,531 gallery templates with the others, as IJB-C's are."""
    return templates_and_pairs(scale, bipartite=True)


def random_pairs(scale: float) -> dict:
    """The same with pairs of any two templates: nine times as many products for each pair that is wanted."""
    return templates_and_pairs(scale, bipartite=False)


def templates_and_pairs(scale: float, *, bipartite: bool) -> dict:
    n, t, p = (max(1000, round(v * scale)) for v in (469_375, 23_124, 15_658_489))
    rng = np.random.default_rng(0)
    x = features(n)
    templates = np.sort(np.concatenate([np.arange(t), rng.integers(0, t, n - t)])) if n > t else np.arange(n)
    media = rng.integers(0, max(1, n // 3), n)
    gallery = t * 3_531 // 23_124
    first = rng.integers(0, gallery if bipartite else t, p)
    second = rng.integers(gallery if bipartite else 0, t, p)
    same = rng.random(p) < 0.00125

    parts = {"pooling": 0.0, "scores": 0.0, "curve": 0.0}

    def ours() -> list[float | None]:
        parts["pooling"], pooled = timed(lambda: pool(x, templates, media))
        parts["scores"], scores = timed(lambda: template_scores(pooled, first, second))
        parts["curve"], roc = timed(lambda: roc_of_cosines(scores, same)[0])
        return [roc.tar_at_far(f).value for f in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)]

    def field() -> np.ndarray:
        from sklearn.metrics import roc_curve

        scores = field_scores(*field_pooling(x, templates, media), first, second)
        return roc_curve(same, scores)[0]

    # Ours before and after theirs: a machine that grows busy in between is seen.
    own, tars = timed(ours)
    mine, shares = peak(), dict(parts)
    theirs, _ = timed(field)
    again, _ = timed(ours)
    return {
        "seconds": own,
        "seconds_again": again,
        **{f"{name}_seconds": share for name, share in shares.items()},
        "field_seconds": theirs,
        "times_faster": theirs / max(own, again),
        "peak_gib": mine,
        "tars": len(tars),
    }


def megaface(scale: float) -> dict:
    """3,530 probes against a million distractors."""
    probes, n = max(100, round(3_530 * scale)), max(10_000, round(1_000_000 * scale))
    x, y = features(probes), features(n, 1)
    subjects = np.arange(probes) // 44
    a, b = torch.from_numpy(x), torch.from_numpy(y)

    def product() -> None:
        for start in range(0, n, 8192):
            a @ b[start : start + 8192].T

    timed(product)
    bare, _ = timed(product)
    own, _ = timed(lambda: with_distractors(x, subjects, y))
    again, _ = timed(product)
    return {"seconds": own, "product_seconds": min(bare, again), "ratio": own / min(bare, again), "peak_gib": peak()}


def everything(scale: float) -> dict:
    """All pairs of 100,000 embeddings."""
    n = max(2_000, round(100_000 * scale))
    x = features(n)
    labels = np.arange(n) // 5
    a = torch.from_numpy(x)

    def product() -> None:
        for start in range(0, n, 1024):
            for column in range(start, n, 4096):
                a[start : start + 1024] @ a[column : column + 4096].T

    product_seconds, _ = timed(product)
    own, _ = timed(lambda: all_pairs(x, labels))
    return {"seconds": own, "product_seconds": product_seconds, "ratio": own / product_seconds, "peak_gib": peak()}


def curve(scale: float) -> dict:
    """10^7 scores to a full ROC."""
    from sklearn.metrics import roc_curve

    n = max(10_000, round(1e7 * scale))
    rng = np.random.default_rng(0)
    same = rng.random(n) < 0.1
    scores = rng.normal(size=n).astype(np.float32) + same
    own, _ = timed(lambda: Roc.from_scores(scores, same))
    theirs, _ = timed(lambda: roc_curve(same, scores, drop_intermediate=False))
    return {"seconds": own, "sklearn_seconds": theirs, "ratio": own / theirs, "peak_gib": peak()}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


QUESTIONS = {
    "ijbc": (ijbc, "pooling and all TARs within 6 GB, >= 10 times faster than the field's loop"),
    "random pairs": (random_pairs, "as ijbc; harder than the set"),
    "megaface": (megaface, "<= 1.3 times the bare product"),
    "all pairs": (everything, "<= 1.5 times the bare product"),
    "roc": (curve, "<= 1 time scikit-learn"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(QUESTIONS[options.child][0](options.scale)))
        return
    results = {"machine": machine(), "scale": options.scale, "answers": {}}
    print(json.dumps(results["machine"]))
    for name in options.only:
        command = [sys.executable, __file__, "--child", name, "--scale", str(options.scale)]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        found = results["answers"][name] = json.loads(run.stdout.strip().splitlines()[-1])
        print(f"\n{name}: {QUESTIONS[name][0].__doc__}   asked for: {QUESTIONS[name][1]}")
        print("  " + "   ".join(f"{key} {value:,.3f}" for key, value in found.items()))
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
