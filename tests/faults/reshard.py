"""Saves a toy state on one process, loads and saves it again on two, three and one, and compares.

    python reshard.py FOLDER ROWS

Prints a JSON object. One thread a rank, loopback, 30 s timeouts.
"""

import json
import multiprocessing
import os
import socket
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, nn

from unpg.distributed import World
from unpg.errors import DataError
from unpg.heads import SampledHead, ShardedHead
from unpg.train import checkpoint as checkpoint_file
from unpg.train.checkpoint import Identities, RunState, checkpoints, latest_checkpoint, load_checkpoint, save_checkpoint
from unpg.train.config import CheckpointConfig
from unpg.train.parallel import split_rows
from unpg.train.saver import Saver
from unpg.train.state import flatten, load_optimizer, named_optimizer, rows_of, split, unflatten

DIM = 3


class Toy:
    """A replicated network, a sharded and a sampled head, and SGD with momentum over all of them."""

    def __init__(self, rows, rank, size):
        torch.manual_seed(1)
        world = World(rank, size)
        self.backbone = nn.Linear(DIM, DIM)
        self.loss = nn.Module()
        self.loss.head = ShardedHead(rows, DIM, world)
        self.loss.sampled = SampledHead(rows, DIM, world, rate=0.5, seed=3)
        self.modules = {"backbone": self.backbone, "loss": self.loss}
        parameters = [p for module in self.modules.values() for p in module.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)
        self.loss.sampled.attach(self.optimizer)
        self.rows, self.world, self.shared = rows, world, split_rows(self.loss)

    def step(self, step):
        """The gradient depends on the row's place alone, so any number of processes makes the same step."""
        gradient = torch.sin(torch.arange(self.rows * DIM, dtype=torch.float32) + step).view(self.rows, DIM)
        head, sampled = self.loss.head, self.loss.sampled
        head.weight.grad = gradient[head.first : head.last].clone()
        sampled.part(torch.tensor([step % self.rows]), self.world, step)
        sampled.active.grad = gradient[sampled.rows + sampled.first].clone()
        for p in self.backbone.parameters():
            p.grad = torch.full_like(p, 0.1 * step)
        self.optimizer.step()

    def state(self):
        values, tensors = {}, {}
        trees = {"backbone": self.backbone.state_dict(), "loss": self.loss.state_dict()}
        trees["optimizer"] = named_optimizer(self.optimizer, self.modules)
        for name, tree in trees.items():
            values[name], found = flatten(tree, name)
            tensors |= found
        names = [f"person {i}" for i in range(self.rows)]
        return RunState(split(tensors, self.shared), values, Identities(names, [1] * self.rows))

    def load(self, run, group):
        found = load_checkpoint(latest_checkpoint(run), rows=rows_of(self.shared), group=group)
        for name, module in self.modules.items():
            module.load_state_dict(unflatten(found.values[name], found.tensors))
        load_optimizer(self.optimizer, self.modules, unflatten(found.values["optimizer"], found.tensors))
        return found.step


def work(task, rank, size, port, run, rows, answers):
    torch.set_num_threads(1)
    group = None
    try:
        if size > 1:
            where = f"tcp://127.0.0.1:{port}"
            timeout = timedelta(seconds=30)
            distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=size, timeout=timeout)
            group = distributed.new_group(backend="gloo", timeout=timeout)
        answers.put((rank, task(rank, size, group, run, rows)))
    except Exception:
        answers.put((rank, traceback.format_exc()))
    finally:
        if size > 1:
            distributed.destroy_process_group()


def on(size, task, run, rows):
    """What ``task`` returns on each of ``size`` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [
        context.Process(target=work, args=(task, rank, size, port, run, rows, answers), daemon=True)
        for rank in range(size)
    ]
    for child in children:
        child.start()
    told = dict(answers.get(timeout=60) for _ in children)
    for child in children:
        child.join(30)
    return [told[rank] for rank in range(size)]


def go_on(rank, size, group, run, rows):
    """Two more steps from the newest checkpoint (or from nothing), saved by a thread."""
    toy = Toy(rows, rank, size)
    step = toy.load(run, group) if checkpoints(run) else 0
    with Saver(run, CheckpointConfig(keep=2, asynchronous=True), group) as saver:
        for _ in range(2):
            toy.step(step)
            step += 1
            saver.save(step, toy.state())
    return step


def fail_on_one(rank, size, group, run, rows):
    """The last process cannot write: all are told, and what was there stays."""
    toy = Toy(rows, rank, size)
    toy.load(run, group)
    if rank == size - 1:
        checkpoint_file._describe_files = lambda part, rank: (_ for _ in ()).throw(
            OSError(28, "No space left on device")
        )
    try:
        save_checkpoint(run, 99, toy.state(), group)
    except DataError as error:
        return str(error)
    return "saved"


def main():
    run, rows = Path(sys.argv[1]), int(sys.argv[2])
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    steps = [on(size, go_on, run, rows) for size in (1, 2, 3, 1)]
    alone = Toy(rows, 0, 1)
    for step in range(8):
        alone.step(step)
    last = load_checkpoint(latest_checkpoint(run))
    expected = {n: t.local if hasattr(t, "local") else t for n, t in alone.state().tensors.items()}
    worst = {n: float((last.tensors[n] - t).abs().max()) if t.numel() else 0.0 for n, t in expected.items()}
    sizes = json.loads((checkpoints(run)[-1] / "manifest.json").read_text())["world_size"]
    failed = on(3, fail_on_one, run, rows)
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    print(json.dumps({"steps": steps, "worst": worst, "world size": sizes, "failed": failed, "left": left}))


if __name__ == "__main__":
    main()
