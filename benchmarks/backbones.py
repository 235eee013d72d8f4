"""How many images a second each backbone takes: forward and backward, without data, loss and optimizer.

    python benchmarks/backbones.py [--only NAME ...] [--batch N] [--precision float32|bfloat16] [--compile]
        [--out backbones.json]

Random images and gradients, channels last; medians over steps after a warm-up. `bfloat16` is autocast, as in training.
`--compile` measures each under torch.compile too, and prints the ratio.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch

from unpg.backbones import create_backbone
from unpg.embed.memory import keep_freed_memory

# name: (kind, settings, input size)
BACKBONES = {
    "small_iresnet, 64 x 64": ("small_iresnet", {"dim": 256, "widths": (16, 32, 64, 128)}, (64, 64)),
    "mobilefacenet": ("mobilefacenet", {}, (112, 112)),
    "iresnet18": ("iresnet18", {}, (112, 112)),
    "iresnet50": ("iresnet50", {}, (112, 112)),
    "iresnet100": ("iresnet100", {}, (112, 112)),
}


def measure(name: str, batch: int, precision: str, steps: int, device: torch.device, compiled: bool = False) -> dict:
    """Images a second, and on a GPU the largest memory."""
    kind, settings, size = BACKBONES[name]
    torch.manual_seed(0)
    model = create_backbone(kind, input_size=size, **settings).to(device, memory_format=torch.channels_last).train()
    network = torch.compile(model) if compiled else model
    images = torch.randn(batch, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for step in range(steps + 3):
        begin = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            features = network(images)
        features.float().backward(torch.full_like(features, 1e-3, dtype=torch.float32))
        model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        if step >= 3:
            seconds.append(time.perf_counter() - begin)
    found = {"images_per_second": round(batch / statistics.median(seconds), 1), "batch": batch}
    if device.type == "cuda":
        found["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(BACKBONES), default=list(BACKBONES))
    parser.add_argument("--batch", type=int, default=None, help="images of a step: 128 on a GPU, 32 on a CPU")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default=None, help="bfloat16 on a GPU")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()
    batch = options.batch or (128 if device.type == "cuda" else 32)
    precision = options.precision or ("bfloat16" if device.type == "cuda" else "float32")
    machine = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    results = {"machine": machine, "precision": precision, "backbones": {}}
    print(json.dumps(machine), precision)
    for name in options.only:
        found = results["backbones"][name] = measure(name, batch, precision, options.steps, device)
        memory = f"{found['peak_mib']:8,} MiB" if "peak_mib" in found else ""
        print(f"  {name:24s} {found['images_per_second']:10,.0f} images/s {memory}", flush=True)
        if options.compile:
            compiled = measure(name, batch, precision, options.steps, device, compiled=True)["images_per_second"]
            found |= {"compiled_images_per_second": compiled}
            ratio = compiled / found["images_per_second"]
            print(f"  {'  compiled':24s} {compiled:10,.0f} images/s, {ratio:.2f} times as many", flush=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
