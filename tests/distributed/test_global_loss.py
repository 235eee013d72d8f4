"""The loss of n processes is that of one: numbers, statistics and every gradient, for every registered loss."""

import math

import pytest
import torch
from processes import run_processes

from unpg.distributed import ALONE, sum_gradients
from unpg.heads import FullHead, SampledHead, ShardedHead, making_heads
from unpg.losses import LOSSES, global_loss, unpg
from unpg.pairs import BoxWhisker, MemoryPairs, Quantile, TopK
from unpg.similarity import Scheduled, Share, Streaming

CLASSES, DIM, STEPS = 7, 5, 3

CASES = {name: (name, {"start": 0} if name == "unitsface" else {}, None) for name in LOSSES}
CASES |= {
    "subcenter k=3": ("subcenter-arcface", {"centers": 3}, None),
    "unpg paper": ("cosface", {"s": 16.0}, {}),
    "unpg anchor": ("arcface", {"s": 16.0}, {"scope": "anchor", "r": 0.5}),
    "unpg balanced": ("arcface", {"s": 16.0}, {"weight": "balanced", "r": math.inf}),
    "unpg share": ("magface", {}, {"weight": Share(0.3)}),
    "unpg late": ("adaface", {}, {"weight": Scheduled(1, 1, 2.0), "keep": TopK(9)}),
    "unpg sums": ("uniface", {}, {"weight": "balanced", "keep": Quantile(0.1, 0.9)}),
    "unpg sum": ("arcface", {"s": 16.0}, {"join": "sum", "weight": 0.7}),
    "unpg upper": ("curricularface", {}, {"keep": BoxWhisker(0.7, sides="upper")}),
    "unpg elastic": ("elasticface", {"sort": True}, {}),
    "waiting": ("unitsface", {"start": 2}, None),
    "waiting for features": ("unitsface", {}, None),
    "unpg memory": ("cosface", {"s": 16.0}, {"memory": {"size": 17}}),
    "unpg memory anchor follow": ("cosface", {"s": 16.0}, {"memory": {"size": 17, "follow": True, "scope": "anchor"}}),
}  # fmt: skip

COUNTS = {1: [[9], [4], [0]], 2: [[5, 4], [0, 6], [3, 3]], 3: [[5, 0, 4], [1, 6, 2], [0, 0, 3]], 4: [[1, 4, 0, 3]] * 3}


def build(case, head, world, streaming=None):
    name, settings, options = CASES[case]
    torch.manual_seed(1)

    def maker(num_classes, dim, centers):
        if head == "full":
            return FullHead(num_classes, dim, centers=centers, init_std=1.0)
        kind = {"sharded": ShardedHead, "sampled": SampledHead}[head]
        more = {"rate": 0.5, "seed": 3} if head == "sampled" else {}
        return kind(num_classes, dim, world, centers=centers, init_std=1.0, **more)

    with making_heads(maker):
        loss = LOSSES.build(name, settings, num_classes=CLASSES, dim=DIM)
    if options is not None:
        memory = options.get("memory")
        if memory is not None:
            follow = loss.pairs.head if memory.get("follow") else None
            more = MemoryPairs(memory["size"], DIM, scope=memory.get("scope", "batch"), head=follow)
            loss = unpg(loss, memory=more)
        else:
            loss = unpg(loss, **options)
    loss = loss.double()
    for module in loss.modules():
        if hasattr(module, "streaming"):
            module.streaming = streaming or Streaming(chunk=2)
    return loss


def batch(step, n):
    g = torch.Generator().manual_seed(step)
    features = torch.randn(n, DIM, generator=g, dtype=torch.float64) * 3
    return features, torch.randint(0, CLASSES, (n,), generator=g), torch.arange(n) + 100 * (step % 2)


def steps(case, head, world, counts_of_steps, moved=True):
    """Loss, statistics and gradients of a few steps; class weights move between them."""
    loss = build(case, head, world)
    found = []
    for step, counts in enumerate(counts_of_steps):
        features, labels, ids = batch(step, sum(counts))
        start = sum(counts[: world.rank])
        mine = slice(start, start + counts[world.rank]) if not world.alone else slice(None)
        own = features[mine].clone().requires_grad_()
        loss.zero_grad()
        out = global_loss(loss, own, labels[mine], world=world, step=step, sample_ids=ids[mine])
        out.loss.backward()
        apart = {p for m in loss.modules() if isinstance(m, ShardedHead | SampledHead) for p in m.parameters()}
        sum_gradients([p for p in loss.parameters() if p not in apart], world)
        found.append(
            {
                "loss": out.loss.detach(),
                "per_anchor": out.per_anchor.detach(),
                "features": own.grad,
                "statistics": out.statistics,
                "parameters": {n: p.grad for n, p in loss.named_parameters()},
            }
        )
        if moved:
            with torch.no_grad():
                for p in loss.parameters():
                    if p.grad is not None:
                        p -= 0.1 * p.grad
    return found


def same(a, b, what, tolerance=1e-10):
    assert a.shape == b.shape, f"{what}: {tuple(a.shape)} and {tuple(b.shape)}"
    if a.numel():
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m: f"{what}: {m}")


def compare(world, head, names):
    """In each process: what it got, against the whole batch computed by itself."""
    for case in names:
        counts = COUNTS[world.size]
        alone = steps(case, "full", ALONE, counts)
        together = steps(case, head, world, counts)
        for step, (one, many) in enumerate(zip(alone, together, strict=True)):
            what = f"{case}, {head} head, step {step}"
            start = sum(counts[step][: world.rank])
            same(many["loss"], one["loss"], f"{what}, loss")
            same(many["per_anchor"], one["per_anchor"], f"{what}, per anchor")
            same(many["features"], one["features"][start : start + counts[step][world.rank]], f"{what}, features")
            assert many["statistics"].keys() == one["statistics"].keys(), what
            for name, value in one["statistics"].items():
                same(many["statistics"][name], value, f"{what}, {name}")
            for name, grad in one["parameters"].items():
                if grad is None:  # zeros would not do: weight decay and momentum would go on
                    assert many["parameters"][name] is None, f"{what}, {name}"
                    continue
                if head == "sharded" and name.endswith("head.weight"):
                    centers = len(grad) // CLASSES
                    first, last = world.part(CLASSES)
                    grad = grad[first * centers : last * centers]
                same(many["parameters"][name], grad, f"{what}, {name}")


def compare_sampled(world, names):
    """A step each, since the drawn weights are another parameter every time."""
    for case in names:
        for step, counts in enumerate(COUNTS[world.size]):
            one, many = (one_sampled(case, w, step, counts) for w in (ALONE, world))
            what = f"{case}, step {step}"
            start = sum(counts[: world.rank])
            same(many["loss"], one["loss"], f"{what}, loss")
            same(many["features"], one["features"][start : start + counts[world.rank]], f"{what}, features")
            first, last = world.part(CLASSES)
            centers = len(one["weights"]) // CLASSES
            same(many["weights"], one["weights"][first * centers : last * centers], f"{what}, weights")


def one_sampled(case, world, step, counts):
    loss = build(case, "sampled", world)
    features, labels, ids = batch(step, sum(counts))
    start = sum(counts[: world.rank])
    mine = slice(None) if world.alone else slice(start, start + counts[world.rank])
    own = features[mine].clone().requires_grad_()
    out = global_loss(loss, own, labels[mine], world=world, step=step, sample_ids=ids[mine])
    out.loss.backward()
    head = next(m for m in loss.modules() if isinstance(m, SampledHead))
    weights = torch.zeros_like(head.weight)
    weights[head.rows] = head.active.grad
    return {"loss": out.loss.detach(), "features": own.grad, "weights": weights}


@pytest.mark.parametrize("size", [2, 3])
def test_drawn_classes_do_not_depend_on_the_number_of_processes(size, tmp_path):
    names = ["arcface", "subcenter k=3", "uniface", "sphereface2", "circle", "unpg paper", "unpg share", "unpg sums"]
    run_processes(size, tmp_path, compare_sampled, names)


@pytest.mark.parametrize(("size", "head"), [(2, "sharded"), (3, "full"), (3, "sharded"), (4, "sharded")])
def test_processes_are_one_process(size, head, tmp_path):
    run_processes(size, tmp_path, compare, head, list(CASES))
