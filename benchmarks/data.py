"""What it costs to bring images in: rates as ratios to bare simplejpeg, and the share of a step that waits for data.

    python benchmarks/data.py [--only NAME ...] [--rounds 41] [--out data.json]

``decode`` copies 2,000 images of celeba288 into each form and takes turns in one process and one thread, batch by
batch: bare ``simplejpeg.decode_jpeg`` of the same files, which lie in memory as bytes; for a folder the same with each
file opened and read first, which nobody who decodes files can do without; the set's ``read``; the loader with
``workers=0``, up to the batch on the device. A ratio is the median over the batches of bare seconds by ours, of
processor time (wall time beside it), so 1 is as fast as bare decoding. ``wait`` runs the first steps of
``recipes/arcface-split-a-cpu.yaml`` as ``unpg train`` does and times the loader apart.

Needs the real faces in UNPG_DATA (docs/data.md).
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import simplejpeg
import torch
from losses import device, machine

from unpg.config import from_dict, read_yaml
from unpg.data import Batch, FolderSet, ImageSet, Loader, Subset, UniformSampler
from unpg.data.content import content
from unpg.data.convert import convert
from unpg.data.open_source import open_source
from unpg.embed.memory import keep_freed_memory
from unpg.evaluate import data_root
from unpg.train import TrainConfig, train
from unpg.train import loop as training_loop

FORMS = ("folder", "recordio", "lmdb", "webdataset")
IMAGES, BATCH = 2_000, 250
RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "arcface-split-a-cpu.yaml"


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def batches(loader: Loader) -> Iterator[Batch]:
    for epoch in range(1 << 30):
        yield from loader.epoch(epoch)


def decode(rounds: int) -> dict:
    """Images/s of one core, and ratios to bare simplejpeg."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as `unpg train` does
    whole = FolderSet(data_root() / "celeba288")
    subset = Subset(whole, np.linspace(0, len(whole) - 1, IMAGES).astype(np.int64))
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        for form in FORMS:
            image_set = open_source(convert(subset, Path(folder) / form, form).path)
            results[form] = compare(image_set, rounds)
    return results


def compare(image_set: ImageSet, rounds: int) -> dict:
    files = [content(image_set, i) for i in range(len(image_set))]
    sampler = UniformSampler(len(image_set), BATCH, seed=0)
    loader = Loader(image_set, sampler, workers=0, device=device())
    feed = batches(loader)
    seconds: dict[str, list[tuple[float, float]]] = {"bare": [], "opened": [], "read": [], "loader": []}
    opened = Path(image_set.name(0)).is_file()
    for number in range(rounds + 2):
        indices = sampler.batch(number // sampler.steps_per_epoch, number % sampler.steps_per_epoch).tolist()
        calls = {
            "bare": lambda indices=indices: [simplejpeg.decode_jpeg(files[i], colorspace="RGB") for i in indices],
            "opened": lambda indices=indices: [decode_file(image_set.name(i)) for i in indices if opened],
            "read": lambda indices=indices: [image_set.read(i) for i in indices],
            "loader": lambda: next(feed),
        }
        names = list(calls)
        for name in names[number % 4 :] + names[: number % 4]:
            seconds[name].append(timed(calls[name]))
    seconds = {name: taken[2:] for name, taken in seconds.items()}  # the first two warm up
    found: dict[str, float] = {}
    if not opened:
        del seconds["opened"]
    for name, taken in seconds.items():
        found[f"{name}_images_per_cpu_second"] = BATCH / statistics.median(cpu for cpu, _ in taken)
    for name in ("read", "loader"):
        for place, clock in enumerate(("ratio", "wall_ratio")):
            for base, suffix in ("bare", ""), ("opened", "_to_opened"):
                if base in seconds:
                    pairs = zip(seconds[base], seconds[name], strict=True)
                    found[f"{name}_{clock}{suffix}"] = statistics.median(a[place] / b[place] for a, b in pairs)
    return found


def decode_file(path: str) -> object:
    with open(path, "rb") as file:  # the shortest way there is
        return simplejpeg.decode_jpeg(file.read(), colorspace="RGB")


class TimedLoader(Loader):
    """Ends after some steps, and keeps how long each batch was waited for and worked with: processor, wall seconds."""

    steps = 0
    waits: ClassVar[list[tuple[float, float]]] = []
    works: ClassVar[list[tuple[float, float]]] = []

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        feed = super().epoch(epoch, start_step)
        if self.waits:  # after training, batches are drawn for a picture
            yield from feed
            return
        for _ in range(self.steps):
            cpu, wall = time.process_time(), time.perf_counter()
            batch = next(feed)
            self.waits.append((time.process_time() - cpu, time.perf_counter() - wall))
            cpu, wall = time.process_time(), time.perf_counter()
            yield batch
            self.works.append((time.process_time() - cpu, time.perf_counter() - wall))


def wait(steps: int) -> dict:
    """The share of a training step of recipe A that waits for data, decoding in the training process."""
    config = from_dict(TrainConfig, read_yaml(RECIPE))
    config = replace(config, epochs=1, evaluation=replace(config.evaluation, benchmarks=()), threads=1)
    TimedLoader.steps = steps
    training_loop.Loader = TimedLoader
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run")
    pairs = list(zip(TimedLoader.waits, TimedLoader.works, strict=True))[2:]
    found: dict[str, float] = {"steps": len(pairs), "step_seconds": statistics.median(w[1] + s[1] for w, s in pairs)}
    for place, clock in enumerate(("share", "wall_share")):
        waited, worked = (sum(part[place] for part in side) for side in zip(*pairs, strict=True))
        found[clock] = waited / (waited + worked)
        found[f"median_{clock}"] = statistics.median(w[place] / (w[place] + s[place]) for w, s in pairs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["decode", "wait"], default=["decode", "wait"])
    parser.add_argument("--rounds", type=int, default=41, help="batches of 250 images that are compared")
    parser.add_argument("--steps", type=int, default=36, help="training steps of `wait`")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    results: dict = {"machine": machine() | {"simplejpeg": simplejpeg.__version__}, "answers": {}}
    if options.out.exists():
        results["answers"] = json.loads(options.out.read_text(encoding="utf-8"))["answers"]
    print(json.dumps(results["machine"]))
    if "decode" in options.only:
        results["answers"]["decode"] = decode(options.rounds)
        print("\ndecode: images/s of a core, ratio to bare simplejpeg (wall)   asked for: >= 0.85")
        for form, found in results["answers"]["decode"].items():
            print(
                f"  {form:10}  bare {found['bare_images_per_cpu_second']:7,.0f}",
                *(
                    f"{name} {found[f'{name}_images_per_cpu_second']:7,.0f} {found[f'{name}_ratio']:.2f} "
                    f"({found[f'{name}_wall_ratio']:.2f})"
                    for name in ("read", "loader")
                ),
                *(
                    f"{name} to bare with opened files {found[f'{name}_ratio_to_opened']:.2f}"
                    for name in ("read", "loader")
                    if f"{name}_ratio_to_opened" in found
                ),
                sep="   ",
            )
    if "wait" in options.only:
        found = results["answers"]["wait"] = wait(options.steps)
        print("\nwait: recipe A, share of a step that waits for data   asked for: <= 0.03")
        print("  " + "   ".join(f"{name} {value:,.4g}" for name, value in found.items()))
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
