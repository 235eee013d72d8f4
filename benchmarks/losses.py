"""What a loss costs: time against bare matrix products and the naive form, and memory beyond weights and gradient.

    python benchmarks/losses.py [--only NAME ...] [--repeats N] [--out losses.json]

Times are medians of ratios: all variants of a question run in turn in one process. Peak memory is that of a fresh
process, less that of one which only holds the inputs and the gradient of the weights. Forward and backward always.
On a CPU the allocator counts too: a process whose glibc gives freed memory back, as it does unless told otherwise, pays
page faults for every large tensor. ``unpg train`` tells it otherwise; the questions say which they ask about.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "reference"))
from naive_unpg import naive_unpg_arcface

from unpg.embed.memory import keep_freed_memory
from unpg.losses import arcface, circle, curricularface, unpg
from unpg.similarity import Streaming
from unpg.similarity.stream import Kernel

MIB = 2**20


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Inputs:
    """Features, labels and class weights whose gradient is already allocated."""

    def __init__(self, b: int, c: int, d: int = 512) -> None:
        where = {"device": device(), "generator": torch.Generator(device()).manual_seed(0)}
        self.features = torch.randn(b, d, **where)
        self.labels = torch.randint(0, c, (b,), **where)
        self.weights = torch.randn(c, d, **where).mul_(0.01)
        self.b, self.c, self.d = b, c, d

    def ours(
        self, build: Callable = arcface, unified: bool = False, streaming: Streaming = Streaming()
    ) -> Callable[[], None]:
        loss = build(1, self.d).to(device())
        loss.pairs.streaming = streaming
        head = loss.pairs.head
        head.num_classes, head.weight = self.c, torch.nn.Parameter(self.weights)
        loss = unpg(loss) if unified else loss

        def step() -> None:
            head.weight.grad = None
            features = self.features.clone().requires_grad_()
            loss(features, self.labels).loss.backward()

        return step

    def naive(self, r: float | None = 1.5) -> Callable[[], None]:
        weights = torch.nn.Parameter(self.weights)

        def step() -> None:
            weights.grad = None
            features = self.features.clone().requires_grad_()
            naive_unpg_arcface(features, self.labels, weights, r=r).backward()

        return step

    def metric_learning(self) -> Callable[[], None]:
        from pytorch_metric_learning.losses import ArcFaceLoss

        loss = ArcFaceLoss(1, self.d, margin=28.6, scale=64)
        loss.num_classes, loss.W = self.c, torch.nn.Parameter(self.weights.T)  # (d, C) is its layout

        def step() -> None:
            loss.W.grad = None
            loss(self.features.clone().requires_grad_(), self.labels).backward()

        return step

    def cut_cross_entropy(self) -> Callable[[], None]:
        """Cut Cross-Entropy on the same factors: a plain softmax, without normalisation or margin."""
        from cut_cross_entropy import linear_cross_entropy

        weights = torch.nn.Parameter(F.normalize(self.weights).bfloat16())

        def step() -> None:
            weights.grad = None
            features = F.normalize(self.features).bfloat16().requires_grad_()
            linear_cross_entropy(64 * features, weights, self.labels).backward()

        return step

    def rounded_products(self, forward_again: bool) -> Callable[[], None]:
        """The products of a GPU: bfloat16 factors, float32 sums; the weights' copy is made beforehand."""
        unit, weights = F.normalize(self.features).bfloat16(), self.weights.bfloat16()
        chunk = self.c if not forward_again else 2**24 // self.b
        grad = torch.empty_like(self.weights)

        def step() -> None:
            down: Tensor | float = 0.0
            for start in range(0, self.c, chunk):
                part = weights[start : start + chunk]
                products = unit @ part.T
                if forward_again:
                    products = unit @ part.T
                down = torch.mm(products, part, out_dtype=torch.float32) + down
                grad[start : start + chunk] = torch.mm(products.T, unit, out_dtype=torch.float32)

        return step

    def products(self, forward_again: bool) -> Callable[[], None]:
        """X W^T, P W, P^T X over the whole; or with the first one twice, in chunks that stay in cache."""
        unit = F.normalize(self.features)
        grad = torch.empty_like(self.weights)
        chunk = self.c if not forward_again else 2048 if device().type == "cpu" else 2**24 // self.b

        def step() -> None:
            down: Tensor | float = 0.0
            for start in range(0, self.c, chunk):
                weights = self.weights[start : start + chunk]
                products = unit @ weights.T
                if forward_again:
                    products = unit @ weights.T
                down = products @ weights + down
                torch.mm(products.T, unit, out=grad[start : start + chunk])

        return step


def variants(question: str, x: Inputs) -> dict[str, Callable[[], Callable[[], None]]]:
    """What is run for a question, by name: what makes a step."""
    ours = {"base": x.ours, "unpg": lambda: x.ours(unified=True)}

    def gpu(keep_mib: float | None, kernel: Kernel, unified: bool = True) -> Callable[[], Callable[[], None]]:
        return lambda: x.ours(unified=unified, streaming=Streaming(None, keep_mib, "bfloat16", kernel))

    rounded = {"base, bfloat16": gpu(None, "auto", False), "unpg, bfloat16": gpu(None, "auto")}

    others = {"pytorch-metric-learning": x.metric_learning}
    if find_spec("cut_cross_entropy"):
        others["cut cross-entropy"] = x.cut_cross_entropy
    return {
        "naive": {"naive": x.naive, "unpg": ours["unpg"]},
        "products": {"products": lambda: x.products(False), **ours},
        "streamed": {"products": lambda: x.products(True), **ours},
        "pairs": ours,
        "cost": ours if device().type == "cpu" else ours | rounded,
        "cuda streamed": {
            "products": lambda: x.rounded_products(True),
            "base": gpu(0, "triton", False),
            "unpg": gpu(0, "triton"),
            "unpg, plain": gpu(0, "plain"),
            **others,
        },
        "cuda kept": {
            "products": lambda: x.rounded_products(False),
            "base": gpu(2**20, "triton", False),
            "unpg": gpu(2**20, "triton"),
            "unpg, plain": gpu(2**20, "plain"),
        },
        "rivals": {
            "arcface": x.ours,
            "curricularface": lambda: x.ours(curricularface),
            "circle": lambda: x.ours(circle),
            "whole matrix": lambda: x.naive(r=None),
            "pytorch-metric-learning": x.metric_learning,
        },
    }[question]


# name: (question, b, C, whether freed memory is kept, what is asked for)
QUESTIONS = {
    "naive": ("naive", 512, 10_000, False, "unpg/naive: time <= 0.25, extra memory <= 0.333"),
    "naive, memory kept": ("naive", 512, 10_000, True, ""),
    "rivals": ("rivals", 512, 10_000, True, ""),
    "products": ("products", 512, 85_742, False, "base/products <= 1.35, unpg/base <= 1.05"),
    "products, memory kept": ("products", 512, 85_742, True, "the same"),
    "streamed": ("streamed", 512, 1_000_000, True, "base/products <= 1.5, extra memory <= 256 MiB"),
    "pairs": ("pairs", 8_192, 100, True, "33.5 million pairs with the filter"),
    "cost, 567 classes": ("cost", 512, 567, True, ""),
    "cost, 10,572 classes": ("cost", 512, 10_572, True, ""),
    "cost, 85,742 classes": ("cost", 512, 85_742, True, ""),
}
# bfloat16 products. A copy of the weights in bfloat16 is 977 MiB; the plain way makes it in chunks.
CUDA_QUESTIONS = {
    "cuda streamed": ("cuda streamed", 4_096, 1_000_000, False, "base/products <= 1.5, extra memory <= 256 MiB"),
    "cuda kept": ("cuda kept", 4_096, 1_000_000, False, "base/products <= 1.25"),
}


def timed(step: Callable[[], None]) -> float:
    begin = time.perf_counter()
    step()
    if device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def measure_time(question: str, b: int, c: int, repeats: int, keeps: bool) -> dict[str, list[float]]:
    if keeps:
        keep_freed_memory()
    steps = {name: make() for name, make in variants(question, Inputs(b, c)).items()}
    for step in steps.values():
        timed(step)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            seconds[name].append(timed(step))
    return seconds


def peak() -> float:
    """MiB at most so far."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(question: str, b: int, c: int, variant: str) -> float:
    inputs = Inputs(b, c)
    if variant == "inputs":
        inputs.weights.grad = torch.ones_like(inputs.weights)
        F.normalize(inputs.features) @ inputs.weights[:64].T  # the libraries that a product loads
        return peak()
    variants(question, inputs)[variant]()()
    return peak()


def child(*arguments: object) -> object:
    run = subprocess.run(
        [sys.executable, __file__, "--child", *map(str, arguments)], check=True, capture_output=True, text=True
    )
    return json.loads(run.stdout.strip().splitlines()[-1])


def ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def answer(question: str, b: int, c: int, keeps: bool, repeats: int) -> dict:
    seconds = child("time", question, b, c, repeats, int(keeps))
    held = child("memory", question, b, c, "inputs")
    names = [k for k in seconds if k != "products"]
    with ThreadPoolExecutor(len(names) if device().type == "cuda" else 1) as together:  # of a GPU each has its own part
        peaks = together.map(lambda k: child("memory", question, b, c, k), names)
        extra = {k: p - held for k, p in zip(names, peaks, strict=True)}
    names = list(seconds)
    return {
        "b": b,
        "classes": c,
        "dim": 512,
        "freed_memory_kept": keeps,
        "seconds": {k: round(statistics.median(v), 4) for k, v in seconds.items()},
        "time_ratios": {
            f"{k}/{first}": round(ratio(seconds[k], seconds[first]), 3)
            for i, first in enumerate(names) for k in names[i + 1 :]
        },
        "extra_mib": {k: round(v, 1) for k, v in extra.items()},
    }  # fmt: skip


def machine() -> dict:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    wide = [f for f in ("avx2", "avx512f", "amx_tile") if f in flags]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": platform.machine(), "vector_units": wide, "cores": os.cpu_count(), "gpu": gpu,
        "threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    questions = QUESTIONS | (CUDA_QUESTIONS if torch.cuda.is_available() else {})
    parser.add_argument("--only", nargs="+", choices=list(questions), default=list(questions))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, question, b, c, *rest = options.child
        if kind == "time":
            print(json.dumps(measure_time(question, int(b), int(c), int(rest[0]), rest[1] == "1")))
        else:
            print(json.dumps(measure_memory(question, int(b), int(c), rest[0])))
        return
    results = {"machine": machine(), "answers": {}}
    print(json.dumps(results["machine"]))
    for name in options.only:
        question, b, c, keeps, wanted = questions[name]
        repeats = max(3, options.repeats // 2) if c >= 1_000_000 or b > 4_096 else options.repeats
        found = results["answers"][name] = answer(question, b, c, keeps, repeats)
        print(f"\n{name}: B = {b:,}, C = {c:,}, d = 512" + (f"   asked for: {wanted}" if wanted else ""))
        for key, value in found["seconds"].items():
            memory = f"{found['extra_mib'][key]:9.1f} MiB extra" if key in found["extra_mib"] else ""
            print(f"  {key:24s} {value:8.3f} s {memory}")
        print("  " + "   ".join(f"{key} {value:.3f}" for key, value in found["time_ratios"].items()))
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
