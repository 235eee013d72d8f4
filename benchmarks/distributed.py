"""What several processes cost: bytes that a step sends, steps a second on this machine, and a model of larger ones.

    python benchmarks/distributed.py [--only bytes speed norm model] [--processes 1 2 4] [--out distributed.json]
    python benchmarks/distributed.py --only parts [--parts parts.json]

``bytes`` counts what each collective of a step is given, beside the least that any exact method must send. ``speed``
times whole steps on processes of one thread, ``norm`` batch normalization alone beside torch's. ``parts``, run where it
is asked for only, measures what one device does in a second and writes it to ``--parts``. ``model`` computes step times
on clusters from the counts and from these parts; it prints of each part whether it was measured, and where, or assumed,
and why.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from losses import machine
from torch import distributed, multiprocessing, nn

from unpg.backbones import create_backbone
from unpg.config import from_dict
from unpg.data import Batch
from unpg.distributed import ALONE, GlobalBatchNorm, World, collectives
from unpg.embed.memory import keep_freed_memory
from unpg.heads import SampledHead, ShardedHead, making_heads
from unpg.losses import arcface, global_loss, unpg
from unpg.similarity import Streaming
from unpg.train import TrainConfig
from unpg.train.setup import prepare, resolve
from unpg.train.step import Stepper

DIM = 512
FLOAT = 4

NETWORK = "iresnet100"  # of the model of larger machines
IMAGES_A_GPU = 128


class Part(NamedTuple):
    """A number that the model of larger machines is made of, and where it is from."""

    value: float
    source: str


# Taken where nothing was measured. 990 TFLOP/s of bfloat16 and 3.35 TB/s of memory: an H100's data sheet.
ASSUMED = {
    "images/s of the network": Part(
        990e12 * 0.35 / (3 * 24.2e9), "35 % of 990 TFLOP/s; 24.2 GFLOP an image forward, three times that for a step"
    ),
    "class products/s": Part(990e12 * 0.5 / (4 * 2 * DIM), "50 % of 990 TFLOP/s; four products of d = 512 a pair"),
    "batch pairs/s": Part(990e12 * 0.5 / (3 * 2 * DIM), "50 % of 990 TFLOP/s; three products of d = 512 a pair"),
    "classes hashed/s": Part(3.35e12 / (20 * 16), "20 passes that read and write int64 at 3.35 TB/s"),
    "bytes/s within a node of 8": Part(450e9, "data sheet of NVLink"),
    "bytes/s between nodes": Part(50e9, "data sheet of a 400 Gbit/s link for each GPU"),
    "seconds of a collective": Part(20e-6, "a guess, times log2 of the processes: latency"),
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


def ask_norm() -> dict[str, Any]:
    """Forward and backward pass of our layer in one process of one thread, as a multiple of the time of torch's."""
    keep_freed_memory()
    torch.set_num_threads(1)
    ratios = {}
    for form in (torch.contiguous_format, torch.channels_last):
        for shape in (64, 64, 32, 32), (128, 64, 64, 64), (128, 512, 4, 4):
            x, grad = (torch.randn(shape).contiguous(memory_format=form) for _ in range(2))
            x.requires_grad_()
            plain, ours = nn.BatchNorm2d(shape[1]), GlobalBatchNorm(nn.BatchNorm2d(shape[1]), ALONE)
            found: dict[nn.Module, list[float]] = {plain: [], ours: []}
            for _ in range(16):
                for layer, seconds in found.items():
                    x.grad = None
                    begin = time.perf_counter()
                    layer(x).backward(grad)
                    seconds.append(time.perf_counter() - begin)
            ratio = statistics.median(b / a for a, b in zip(found[plain][1:], found[ours][1:], strict=True))
            ratios[f"{' x '.join(map(str, shape))}, {str(form).removeprefix('torch.')}"] = round(ratio, 2)
    return ratios


def ask_parts(network: str, images: int, classes: int) -> dict[str, Any]:
    """What one device does in a second: on a GPU in bfloat16, on a CPU in float32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    where = torch.cuda.get_device_name() if on_gpu else f"a CPU, {torch.get_num_threads()} threads"

    def seconds(step: Callable[[], object]) -> float:
        """Of one call: the median of five, after one that does not count."""
        found = []
        for _ in range(6):
            begin = time.perf_counter()
            step()
            if on_gpu:
                torch.cuda.synchronize()
            found.append(time.perf_counter() - begin)
        return statistics.median(found[1:])

    def of_network() -> float:
        backbone = create_backbone(network, dim=DIM, input_size=(112, 112)).to(device)
        backbone.to(memory_format=torch.channels_last)
        x = torch.randn(images, 3, 112, 112, device=device).contiguous(memory_format=torch.channels_last)

        def step() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
                features = backbone(x)
            features.float().sum().backward()

        return seconds(step)

    parts = {"images/s of the network": Part(images / of_network(), f"{where}, {network}, {images} images")}
    batch, few, many = 32 * images, 100, 64 * images
    streaming = Streaming(keep_mib=0, products="bfloat16", kernel="triton") if on_gpu else Streaming(keep_mib=0)

    def of_loss(rows: int, num_classes: int, with_pairs: bool) -> float:
        loss = arcface(num_classes, DIM)
        loss.pairs.streaming = streaming
        loss = (unpg(loss) if with_pairs else loss).to(device)
        features = torch.randn(rows, DIM, device=device).requires_grad_()
        labels = torch.arange(rows, device=device) % num_classes
        return seconds(lambda: loss(features, labels).loss.backward())

    parts["class products/s"] = Part(
        batch * classes / of_loss(batch, classes, False), f"{where}, {batch:,} x {classes:,}, nothing kept"
    )
    of_pairs = of_loss(many, few, True) - of_loss(many, few, False)
    parts["batch pairs/s"] = Part(many * many / 2 / of_pairs, f"{where}, a batch of {many:,}, fences included")
    head = SampledHead(classes, 1).to(device)
    labels = torch.arange(batch, device=device) % classes
    parts["classes hashed/s"] = Part(classes / seconds(lambda: head._draw(labels, 0)), f"{where}, {classes:,} classes")
    return {name: part._asdict() for name, part in parts.items()}


def known_parts(file: Path) -> dict[str, Part]:
    """Measured ones of the file, ``{name: {"value": number, "source": text}}``; assumed ones for the rest."""
    measured = {name: Part(**part) for name, part in json.loads(file.read_text()).items()} if file.exists() else {}
    if measured.keys() - ASSUMED.keys():
        raise SystemExit(f"{file}: no parts of the model: {measured.keys() - ASSUMED.keys()}; it has {list(ASSUMED)}.")
    known = {}
    for name, assumed in ASSUMED.items():
        value, source = measured.get(name, assumed)
        known[name] = Part(value, f"{'measured' if name in measured else 'assumed'}: {source}")
    return known


def modelled(parts: dict[str, Part], network: nn.Module, gpus: int, classes: float, rate: float) -> dict[str, float]:
    """Seconds of a step, and GiB a GPU; nothing overlaps but the network's own gradients."""
    batch, own = gpus * IMAGES_A_GPU, classes * rate / gpus
    bandwidth = parts["bytes/s within a node of 8" if gpus <= 8 else "bytes/s between nodes"].value
    latency = parts["seconds of a collective"].value * math.log2(gpus)

    def sent(size: float, collectives: int, times: int) -> float:
        return times * size * (gpus - 1) / gpus / bandwidth + collectives * latency

    images = IMAGES_A_GPU / parts["images/s of the network"].value
    gradients = sent(FLOAT * sum(p.numel() for p in network.parameters()), 1, times=2)
    norms = [m.num_features for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    found = {
        "network": images,
        "batch norm over all": sent(2 * FLOAT * sum(norms), 2 * len(norms), times=2),
        "class products": batch * own / parts["class products/s"].value,
        "batch pairs": batch * batch / 2 / gpus / parts["batch pairs/s"].value,
        "features": sent(batch * DIM * FLOAT, 2, times=2),  # gathered, and their gradient scattered
        "row scalars": sent(3 * batch * FLOAT, 3, times=2),  # peak, sum and own cosine of each row
        "fences": sent(8 * 8192, 3, times=2),
        "draw": classes / gpus / parts["classes hashed/s"].value + 3 * latency if rate < 1 else 0.0,
        "gradients not hidden": max(0.0, gradients - 2 / 3 * images),  # DDP sends while the backward pass goes on
    }
    step = sum(found.values())
    # Weights and momentum of all classes here, the gradient of those that take part.
    memory = (2 * classes / gpus + own) * DIM * FLOAT
    return {**found, "step": step, "images a second": batch / step, "class weights, GiB a GPU": memory / 2**30}


def ask_model(parts: dict[str, Part]) -> dict[str, Any]:
    network = create_backbone(NETWORK, dim=DIM, input_size=(112, 112))
    runs = [(8, 2e6, 1), (64, 2e6, 1), (64, 1e7, 1), (256, 1e7, 1), (256, 1e8, 0.1), (1024, 1e8, 0.1), (1024, 1e8, 1)]
    steps = [
        {"GPUs": gpus, "classes": classes, "rate": rate, **modelled(parts, network, gpus, classes, rate)}
        for gpus, classes, rate in runs
    ]
    return {"parts": {name: part._asdict() for name, part in parts.items()}, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("bytes", "speed", "norm", "model", "parts"),
        default=("bytes", "speed", "norm", "model"),
    )
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--parts", type=Path, default=Path(__file__).with_name("parts.json"))
    parser.add_argument("--network", default=NETWORK, help="of --only parts")
    parser.add_argument("--images", type=int, default=IMAGES_A_GPU, help="of --only parts: what the network is given")
    parser.add_argument("--classes", type=int, default=1_000_000, help="of --only parts")
    given = parser.parse_args()
    answers = json.loads(given.out.read_text()) if given.out.exists() else {}
    if {"bytes", "speed", "norm"} & set(given.only):
        answers["machine"] = machine()
    if "bytes" in given.only:
        answers["bytes"] = ask_bytes(given.processes)
        for size, found in answers["bytes"].items():
            print(f"bytes, {size} processes: {found['given']}; least {found['least']}; {found['ratio']} of the least")
    if "speed" in given.only:
        answers["speed"] = ask_speed(given.processes, given.steps)
        print(f"speed: {answers['speed']}")
    if "norm" in given.only:
        answers["norm"] = ask_norm()
        for of, ratio in answers["norm"].items():
            print(f"norm, {of}: {ratio} of the time of torch's")
    if "parts" in given.only:
        parts = ask_parts(given.network, given.images, given.classes)
        given.parts.write_text(json.dumps(parts, indent=1) + "\n")
    if "model" in given.only:
        answers["model"] = ask_model(known_parts(given.parts))
        for name, part in answers["model"]["parts"].items():
            print(f"{name}: {part['value']:.4g} ({part['source']})")
        for step in answers["model"]["steps"]:
            print({name: float(f"{value:.4g}") for name, value in step.items()})
    given.out.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
