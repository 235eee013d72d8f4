"""What several processes cost: bytes that a step sends, steps a second on this machine, and a model of larger ones.

    python benchmarks/distributed.py [--only bytes speed model] [--processes 1 2 4] [--out distributed.json]

``bytes`` counts what each collective of a step is given, beside the least that any exact method must send. ``speed``
times whole steps on processes of one thread. ``model`` computes step times on clusters from the counts and from the
assumptions printed with it; it measures nothing.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from losses import machine
from torch import distributed, multiprocessing

from unpg.config import from_dict
from unpg.data import Batch
from unpg.distributed import World, collectives
from unpg.heads import ShardedHead, making_heads
from unpg.losses import arcface, global_loss, unpg
from unpg.train import TrainConfig
from unpg.train.setup import prepare, resolve
from unpg.train.step import Stepper

DIM = 512
FLOAT = 4

# What the model of larger machines assumes; sources: vendors' data sheets for the first three, guesses for the rest.
ASSUMED = {
    "peak TFLOP/s, bfloat16": 990.0,
    "GB/s of a GPU within a node of 8": 450.0,
    "GB/s of a GPU between nodes": 50.0,
    "part of the peak that the network reaches": 0.35,
    "part of the peak that class products reach": 0.5,
    "seconds of latency of a collective, times log2 of the processes": 20e-6,
    "GFLOP of an IResNet-100 forward pass, 112 x 112": 24.2,
    "million parameters of the network": 65.0,
    "images a GPU": 128,
}


_COLLECTIVES = ((distributed, "all_reduce"), (distributed, "all_gather"), (collectives, "_reduce_scatter"))


class Counted:
    """Counts what collectives are given while it is entered."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()

    def __enter__(self) -> "Counted":
        self.before = {}
        for place, name in _COLLECTIVES:
            self.before[place, name] = getattr(place, name)
            setattr(place, name, self._counting(name.strip("_"), getattr(place, name)))
        return self

    def _counting(self, name: str, call: Any) -> Any:
        def counting(*arguments: Any, **options: Any) -> Any:
            tensor = arguments[0] if name == "all_reduce" else arguments[1]
            size = tensor.numel() * tensor.element_size()
            kind = name.split("_")[0] + " " + name.split("_")[1]
            self.bytes[kind] += size
            self.calls[kind] += 1
            self.largest[kind] = max(self.largest[kind], size)
            return call(*arguments, **options)

        return counting

    def __exit__(self, *_: object) -> None:
        for (place, name), call in self.before.items():
            setattr(place, name, call)


def run(size: int, function: Any, *arguments: Any) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(child, (size, folder, function, arguments), nprocs=size)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]


def child(rank: int, size: int, folder: str, function: Any, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    world = World(rank, size, distributed.group.WORLD, rank)
    torch.save(function(world, *arguments), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def loss_step(world: World, batch: int, classes: int) -> dict[str, Any]:
    """What one step of the loss sends, from features to their gradient."""
    torch.manual_seed(0)
    with making_heads(lambda c, d, k: ShardedHead(c, d, world, centers=k)):
        loss = unpg(arcface(classes, DIM))
    first, last = world.part(batch)
    g = torch.Generator().manual_seed(world.rank)
    own = torch.randn(last - first, DIM, generator=g).requires_grad_()
    labels = torch.randint(0, classes, (last - first,), generator=g)
    counts = [b - a for a, b in (World(r, world.size).part(batch) for r in range(world.size))]
    with Counted() as counted:
        global_loss(loss, own, labels, world=world, counts=counts).loss.backward()
    return {"bytes": dict(counted.bytes), "calls": dict(counted.calls), "largest": dict(counted.largest)}


def ask_bytes(sizes: list[int]) -> dict[str, Any]:
    answers = {}
    for size in (s for s in sizes if s > 1):
        batch, classes = 256, 2000
        found = run(size, loss_step, batch, classes)[0]
        rows = batch / size * DIM * FLOAT
        # Each process must learn the features of the others, and give back what it found for them.
        least = {"all gather": rows, "reduce scatter": batch * DIM * FLOAT}
        given = found["bytes"]
        answers[str(size)] = {
            "batch": batch,
            "classes": classes,
            "given": given,
            "calls": found["calls"],
            "least": least,
            "ratio": round(sum(given.values()) / sum(least.values()), 3),
            "besides features": int(sum(given.values()) - sum(least.values())),
        }
    return answers


def whole_steps(world: World, steps: int) -> float:
    """Images a second of a small network's training steps."""
    config = {
        "data": {"kind": "synthetic", "identities": 40, "views": 4, "size": [64, 64]},
        "backbone": {"kind": "small_iresnet", "dim": 128},
        "preprocessing": {"size": [64, 64]},
        "loss": {"kind": "arcface"},
        "unpg": {},
        "head": {"kind": "sharded"},
        "sampler": {"batch_size": 128},
        "device": "cpu",
        "threads": 1,
    }
    setup = prepare(resolve(from_dict(TrainConfig, config)), world)
    stepper = Stepper(setup)
    rows = setup.sampler.batch(0, 0)
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(rows), 64, 64, 3), generator=g, dtype=torch.uint8)
    batch = Batch(images, torch.from_numpy(setup.images.labels[rows]), torch.from_numpy(rows))
    stepper(batch, 0, 0)
    world.barrier()
    begin = time.perf_counter()
    for step in range(1, steps + 1):
        stepper(batch, 0, step)
    world.barrier()
    return 128 * steps / (time.perf_counter() - begin)


def ask_speed(sizes: list[int], steps: int) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    rates = {size: min(run(size, whole_steps, steps)) for size in sizes}
    return {
        "cores": cores,
        "images a second": {str(size): round(rate, 1) for size, rate in rates.items()},
        "of linear": {str(s): round(rate / (rates[sizes[0]] * min(s, cores)), 3) for s, rate in rates.items()},
    }


def modelled(gpus: int, classes: float, rate: float = 1.0) -> dict[str, float]:
    """Seconds of a step, and GiB a GPU, under ``ASSUMED``; nothing overlaps but the network's own gradients."""
    a = ASSUMED
    batch = gpus * a["images a GPU"]
    peak = a["peak TFLOP/s, bfloat16"] * 1e12
    bandwidth = 1e9 * a["GB/s of a GPU within a node of 8" if gpus <= 8 else "GB/s of a GPU between nodes"]
    latency = a["seconds of latency of a collective, times log2 of the processes"] * math.log2(max(gpus, 2))

    def sent(size: float, collectives: int, times: float = 1.0) -> float:
        return 0.0 if gpus == 1 else times * size * (gpus - 1) / gpus / bandwidth + collectives * latency

    network = 3 * a["images a GPU"] * a["GFLOP of an IResNet-100 forward pass, 112 x 112"] * 1e9
    network /= peak * a["part of the peak that the network reaches"]
    own = classes * rate / gpus
    products = 4 * 2 * batch * own * DIM / (peak * a["part of the peak that class products reach"])
    pairs = 3 * batch * batch * DIM / gpus / (peak * a["part of the peak that class products reach"])
    features = sent(batch * DIM * FLOAT, 2, times=2)  # gathered, and their gradient scattered
    rows = sent(3 * batch * FLOAT, 3, times=2)  # peak, sum and own cosine of each row
    fences = sent(8 * 8192, 3, times=2)
    gradients = sent(a["million parameters of the network"] * 1e6 * FLOAT, 1, times=2)
    hidden = max(0.0, gradients - 2 / 3 * network)  # DDP sends while the backward pass goes on
    # Weights, momentum and gradient of the classes that take part.
    memory = classes / gpus * DIM * FLOAT * 2 + own * DIM * FLOAT
    total = network + products + pairs + features + rows + fences + hidden
    return {
        "network": network,
        "class products": products,
        "batch pairs": pairs,
        "features": features,
        "row scalars": rows,
        "fences": fences,
        "gradients not hidden": hidden,
        "step": total,
        "images a second": batch / total,
        "class weights, GiB a GPU": memory / 2**30,
    }


def ask_model() -> dict[str, Any]:
    found = []
    runs = [(8, 2e6, 1), (64, 2e6, 1), (64, 1e7, 1), (256, 1e7, 1), (256, 1e8, 0.1), (1024, 1e8, 0.1), (1024, 1e8, 1)]
    for gpus, classes, rate in runs:
        found.append({"GPUs": gpus, "classes": classes, "rate": rate, **modelled(gpus, classes, rate)})
    return {"assumed": ASSUMED, "steps": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=("bytes", "speed", "model"), default=["bytes", "speed", "model"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    answers = json.loads(given.out.read_text()) if given.out.exists() else {}
    answers["machine"] = machine()
    if "bytes" in given.only:
        answers["bytes"] = ask_bytes(given.processes)
        for size, found in answers["bytes"].items():
            print(f"bytes, {size} processes: {found['given']}; least {found['least']}; {found['ratio']} of the least")
    if "speed" in given.only:
        answers["speed"] = ask_speed(given.processes, given.steps)
        print(f"speed: {answers['speed']}")
    if "model" in given.only:
        answers["model"] = ask_model()
        for step in answers["model"]["steps"]:
            print({name: float(f"{value:.4g}") for name, value in step.items()})
    given.out.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
