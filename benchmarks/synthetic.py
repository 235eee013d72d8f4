"""Are rendered faces worth using: what networks and trivial rules see in them, and how fast they come.

    python benchmarks/synthetic.py [--only NAME ...] [--people 600] [--weights FILE] [--out synthetic.json]

``realism``: pairs of rendered people. Both images of a pair differ in light, expression, background and camera noise;
the two people of an impostor pair are matched in sex, skin tone and hair. A network trained on real faces should be
right in most of them, trivial rules should not. ``twins``: how alike near-twins look to that network. ``speed``:
images a second, by 1 and 2 processes. ``cuda``: on a GPU, with nothing else on it, by size of batch. The network is
MobileFaceNet (Xiaoccer's weights); without the file, or the GPU, what needs it is left out, and said to be.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import torch
from losses import machine

from unpg.data.synthetic import Identity, Noise, SyntheticFaces, Variation, sample_identity
from unpg.evaluate import BASELINES, PairBenchmark, PairResult, embedder
from unpg.export import import_weights

ASKED = {"MobileFaceNet": "75 to 97", "grey-pixels": "below 65", "mean-color": "below 60"}
SEED = 11
STILL = dict.fromkeys(("yaw", "pitch", "roll"), (0.0, 0.0))
MATCHED = ("sex", "melanin", "undertone", "hair_melanin", "hair_red", "hair_gray", "hair_length", "hair_curl",
           "hair_recession", "hair_fringe", "beard", "mustache", "age")  # fmt: skip
SECONDS = 12.0
QUESTIONS = ("realism", "twins", "speed", "cuda")
BATCHES = (32, 256, 1024)


def lookalikes(people: list[Identity]) -> np.ndarray:
    """(n,) for each person the nearest other one of the same sex in skin tone, hair and age."""
    traits = np.array([[getattr(p, name) for name in MATCHED] for p in people])
    weight = np.array([4.0 if name in ("sex", "melanin", "hair_melanin") else 1.0 for name in MATCHED])
    far = np.stack([(((traits - row) * weight) ** 2).sum(1) for row in traits])
    male = traits[:, 0] > 0.5
    far[male[:, None] != male] = np.inf
    np.fill_diagonal(far, np.inf)
    return far.argmin(1)


def realism(people: int, weights: Path | None) -> dict:
    """Accuracy over ten folds of people, best threshold of the other nine."""
    faces = SyntheticFaces(people, 2, seed=SEED, variation=Variation(**STILL))
    other = lookalikes([sample_identity(SEED, k) for k in range(people)])
    k = np.arange(people)
    pairs = np.concatenate([np.stack([2 * k, 2 * k + 1], 1), np.stack([2 * k, 2 * other + 1], 1)])
    same = np.repeat([True, False], people)
    images = faces.materialize()
    benchmark = PairBenchmark("synthetic", images, pairs, same, np.tile(k * 10 // people, 2), identities=images.labels)
    rows = {name: BASELINES[name] for name in BASELINES if name != "constant"}
    if weights is not None:
        rows = {"MobileFaceNet": embedder(import_weights(weights, preset="mobilefacenet-xiaoccer")), **rows}
    found = {}
    for name, embed in rows.items():
        result = benchmark.run(embed)
        assert isinstance(result, PairResult)
        told = result.to_dict()
        found[name] = {
            "accuracy": 100 * told["accuracy"]["exact"]["mean"],
            "std": 100 * told["accuracy"]["exact"]["std"],
            "auc": 100 * told["auc"],
        }
    return {"pairs": len(pairs), "people": people, "rows": found}


def twins(people: int, weights: Path) -> dict:
    """Cosines of pairs of one person, of near-twins, and of other people: 10 %, median and 90 %."""
    variation = Variation(yaw=(-25.0, 25.0), pitch=(-10.0, 10.0), roll=(0.0, 0.0))
    # Half of the identities are near-twins of the other half.
    faces = SyntheticFaces(2 * people, 2, seed=SEED, variation=variation, noise=Noise(twins=0.5))
    embed = embedder(import_weights(weights, preset="mobilefacenet-xiaoccer"))
    x = embed(faces.materialize())[0].reshape(2 * people, 2, -1)
    twin = np.flatnonzero(faces.population.twin_of >= 0)
    base = faces.population.twin_of[twin]
    across = x[base, 0] @ x[base, 1].T
    cosines = {
        "one person": np.diag(across),
        "near-twins": (x[twin, 1] * x[base, 0]).sum(1),
        "other people": across[~np.eye(people, dtype=bool)],
    }
    return {name: [float(q) for q in np.quantile(values, [0.1, 0.5, 0.9])] for name, values in cosines.items()}


def _draw(seconds: float, first: int) -> tuple[int, float, float]:
    """Images drawn in so many seconds, the seconds, and those of the processor."""
    torch.set_num_threads(1)
    faces = SyntheticFaces(4096, 4, seed=SEED, first_identity=first)
    faces.read_many(range(16))
    began, worked, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        faces.read_many(range(16 + done, 16 + done + 32))
        done += 32
    return done, time.perf_counter() - began, time.process_time() - worked


def speed() -> dict:
    """Images of 112 x 112 a second, in batches of 32; and for a second of a core's time, which others do not share."""
    found = {}
    for processes in (1, 2):
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            made = pool.starmap(_draw, [(SECONDS, 4096 * p) for p in range(processes)])
        found[f"{processes} processes"] = {
            "images_per_second": sum(done / wall for done, wall, _ in made),
            "images_per_core_second": sum(done for done, *_ in made) / sum(cpu for *_, cpu in made),
        }
    return found


def cuda() -> dict:
    """Images of 112 x 112 a second as the loader gets them, bytes in the host's memory, and the GPU's peak in MiB."""
    found = {}
    for batch in BATCHES:
        faces = SyntheticFaces(16_384, 4, seed=SEED)
        faces.render(range(batch), "cuda")  # what is made once: kernels, the mesh, the allocator's blocks
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS / 4 and done + 2 * batch <= len(faces):
            faces.render(range(batch + done, 2 * batch + done), "cuda").images.cpu()
            done += batch
        found[f"batches of {batch:,}"] = {
            "images_per_second": done / (time.perf_counter() - began),
            "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=QUESTIONS)
    parser.add_argument("--people", type=int, default=600)
    default = Path(os.environ.get("UNPG_DATA", "../shared/data"), "weights/mobilefacenet_xiaoccer_068.ckpt")
    parser.add_argument("--weights", type=Path, default=default)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    if set(options.only) - {"cuda"}:  # of what the GPU did, the machine stands with it
        results["machine"] = machine()
    there = options.weights if options.weights.is_file() else None
    if there is None:
        print(f"No {options.weights}: what needs the network is left out.")
    if "realism" in options.only:
        found = results["realism"] = realism(options.people, there)
        print(f"realism: {found['pairs']:,} pairs of {found['people']:,} rendered people, accuracy in percent")
        for name, row in found["rows"].items():
            asked = ASKED.get(name)
            print(
                f"  {name:14} {row['accuracy']:6.2f} ± {row['std']:.2f}" + (f"   asked for: {asked}" if asked else "")
            )
    if "twins" in options.only and there is not None:
        print("twins: cosines of the network's embeddings, 10 %, median and 90 % of pairs")
        results["twins"] = twins(options.people // 6, there)
        for name, cosines in results["twins"].items():
            print(f"  {name:14} " + "   ".join(f"{c:6.3f}" for c in cosines))
    if "speed" in options.only:
        print("speed: 112 x 112, one thread each   asked for: 200 images/s by 2 processes")
        results["speed"] = speed()
        for name, row in results["speed"].items():
            print(f"  {name:12} " + "   ".join(f"{key} {value:,.1f}" for key, value in row.items()))
    if "cuda" in options.only and not torch.cuda.is_available():
        print("No CUDA device: rendering on one is left out.")
    elif "cuda" in options.only:
        print(f"cuda: 112 x 112, {torch.cuda.get_device_name()}, one process")
        results["cuda"] = {"machine": machine(), "rows": cuda()}
        for name, row in results["cuda"]["rows"].items():
            print(f"  {name:18} " + "   ".join(f"{key} {value:,.1f}" for key, value in row.items()))
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
