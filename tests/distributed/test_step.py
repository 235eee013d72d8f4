"""Training steps of n processes are those of one: weights of network and classes, momentum, statistics."""

import pytest
import torch
from processes import run_processes

from unpg.config import from_dict
from unpg.data import Batch
from unpg.distributed import ALONE
from unpg.errors import ConfigError
from unpg.heads import SampledHead, ShardedHead
from unpg.train import TrainConfig
from unpg.train.parallel import RankSampler
from unpg.train.setup import prepare, resolve
from unpg.train.step import Stepper

STEPS = 4

BASE = {
    "data": {"kind": "synthetic", "identities": 7, "views": 4, "size": [32, 32]},
    "backbone": {"kind": "small_iresnet", "dim": 8, "blocks": [1, 1, 1, 1], "widths": [4, 8, 8, 8]},
    "preprocessing": {"size": [32, 32]},
    "loss": {"kind": "cosface", "s": 8.0, "m": 0.2},
    "optim": {"lr": 0.05},
    "sampler": {"batch_size": 10},
    "device": "cpu",
    "threads": 1,
    "epochs": 4,
}

CASES = {
    "unpg": {"unpg": {"r": 1.0}, "head": {"kind": "sharded"}},
    "memory": {"unpg": {"memory": {"size": 24, "follow": True}}, "head": {"kind": "sharded"}},
    "adaface, clipped": {
        "loss": {"kind": "adaface", "s": 8.0}, "optim": {"lr": 0.05, "clip_norm": 0.5}, "head": {"kind": "sharded"},
    },
    "full head": {"unpg": {}, "optim": {"kind": "adamw", "lr": 0.003}},
    "sampled head": {"unpg": {}, "head": {"kind": "sampled", "rate": 0.5}},
    "last batch of 8": {"unpg": {}, "sampler": {"batch_size": 20, "drop_last": False}, "head": {"kind": "sharded"}},
    "lazy head": {
        "unpg": {"memory": {"size": 24, "follow": True}}, "head": {"kind": "sampled", "rate": 0.3, "lazy": True},
    },
    "two passes": {"unpg": {}, "accumulate": 2, "head": {"kind": "sharded"}},
    "one pass": {"accumulate": 2, "head": {"kind": "sharded"}},
    "triplet": {"loss": {"kind": "triplet"}, "sampler": {"kind": "pk", "batch_size": 10, "images_per_identity": 2}},
}  # fmt: skip


def trained(case, world, **more):
    config = resolve(from_dict(TrainConfig, BASE | CASES[case] | more))
    setup = prepare(config, world)
    setup.model.backbone.double(), setup.loss.double()
    stepper = Stepper(setup)
    losses = []
    for step in range(STEPS):
        epoch, at = divmod(step, setup.steps_per_epoch)
        rows = setup.sampler.batch(epoch, at)
        images = torch.stack([torch.from_numpy(setup.images.read(int(i))) for i in rows])
        batch = Batch(images, torch.from_numpy(setup.images.labels[rows]), torch.from_numpy(rows))
        done = stepper(batch, epoch, step)
        assert done.updated
        losses.append(done.out.loss)
    return setup, torch.stack(losses)


def compare(world, case):
    one, losses = trained(case, ALONE)
    many, shared_losses = trained(case, world)
    assert isinstance(many.sampler, RankSampler)
    torch.testing.assert_close(shared_losses, losses, rtol=1e-9, atol=1e-9)
    for a, b in (many.model.backbone, one.model.backbone), (many.loss, one.loss):
        split = {f"{n}.weight" for n, m in a.named_modules() if isinstance(m, ShardedHead | SampledHead)}
        whole = b.state_dict()
        for name, value in a.state_dict().items():
            if not isinstance(value, torch.Tensor):
                continue
            expected = whole[name]
            if name.rpartition(".")[2] not in SampledHead.COMMON_STATE and any(
                name.startswith(head[: -len("weight")]) and head in split for head in split
            ):
                first, last = world.part(len(expected))
                expected = expected[first:last]
            torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-7, msg=lambda m, n=name: f"{case}, {n}: {m}")


@pytest.mark.parametrize(
    ("size", "case"),
    [
        (2, "unpg"),
        (3, "memory"),
        (2, "adaface, clipped"),
        (3, "sampled head"),
        (3, "last batch of 8"),
        (2, "lazy head"),
    ],
)
def test_steps_of_processes_are_those_of_one(size, case, tmp_path):
    run_processes(size, tmp_path, compare, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["full head", "two passes", "one pass", "triplet"])
@pytest.mark.parametrize("size", [2, 3])
def test_steps_of_processes_are_those_of_one_in_other_ways(size, case, tmp_path):
    run_processes(size, tmp_path, compare, case)


@pytest.mark.parametrize(
    "loss",
    [
        {"unpg": {"r": 1.0}},
        {"loss": {"kind": "elasticface", "s": 8.0, "sigma": 0.2, "sort": True}},
        {"loss": {"kind": "adaface", "s": 8.0}},
        {"loss": {"kind": "curricularface", "s": 8.0}},
    ],
    ids=str,
)
def test_two_passes_give_the_gradient_of_the_whole_batch(loss):
    """Without batch norms that would see micro-batches: in evaluation mode they use running statistics."""
    found = []
    for accumulate in 1, 2, 5:
        config = resolve(from_dict(TrainConfig, BASE | loss | {"accumulate": accumulate}))
        setup = prepare(config)
        setup.model.backbone.double(), setup.loss.double()
        for module in setup.model.backbone.modules():
            module.training = False
            module.train = lambda mode=True: None  # stays as it is
        stepper = Stepper(setup)
        rows = setup.sampler.batch(0, 0)
        images = torch.stack([torch.from_numpy(setup.images.read(int(i))) for i in rows])
        stepper(Batch(images, torch.from_numpy(setup.images.labels[rows]), torch.from_numpy(rows)), 0, 0)
        found.append({n: p.grad for m in (setup.model.backbone, setup.loss) for n, p in m.named_parameters()})
    for other in found[1:]:
        for name, grad in found[0].items():
            error = float((other[name] - grad).norm() / grad.norm().clamp(min=1e-12))
            assert error < 1e-10, f"{name}: {error}"


class DrawsOtherwise(torch.nn.Module):
    """A network that torch's generator is not where the plain one would have it, as if compiled."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        torch.rand(())
        return self.network(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler says so of torch's own scripts
@pytest.mark.parametrize("really", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_both_passes_of_a_compiled_network_drop_the_same(monkeypatch, really):
    if not really:
        monkeypatch.setattr(torch, "compile", DrawsOtherwise)
    found = []
    embed = Stepper._embed

    def noted(self, *arguments):
        features = embed(self, *arguments)
        found.append(features.detach())
        return features

    monkeypatch.setattr(Stepper, "_embed", noted)
    backbone = BASE["backbone"] | {"dropout": 0.5}
    trained("two passes", ALONE, backbone=backbone, compile=True)
    assert len(found) == 4 * STEPS
    for step in range(STEPS):
        first, second = found[4 * step :][:2], found[4 * step :][2:4]
        for a, b in zip(first, second, strict=True):
            torch.testing.assert_close(a, b)


def test_drawn_classes_of_several_micro_batches_are_refused_but_for_one_loss_over_all_of_them():
    drawn = {"head": {"kind": "sampled", "rate": 0.5}}
    for more in {}, {"unpg": {}, "pairs": "micro"}:
        with pytest.raises(ConfigError, match=r"accumulate 2 takes .*: set accumulate: 1, or head.kind: sharded"):
            trained("one pass", ALONE, **drawn, **more)
    _, losses = trained("two passes", ALONE, **drawn)
    assert losses.isfinite().all()


@pytest.mark.parametrize("case", ["unpg", "two passes"])
def test_recomputed_blocks_change_nothing(case):
    plain, losses = trained(case, ALONE)
    again, same_losses = trained(case, ALONE, recompute=True)
    assert torch.equal(losses, same_losses)
    for (name, a), b in zip(
        again.model.backbone.state_dict().items(), plain.model.backbone.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
