"""Everything that takes a device, on one that is not the CPU: nothing is left behind, and results stay the same.

Where there is a GPU that is it, and results are the same to rounding. Elsewhere it is :mod:`pretended`, and they
are the same to the last bit.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from pretended import POSSIBLE, Elsewhere, pretended

from unpg.audit.scan import scan
from unpg.config import from_dict
from unpg.data import FolderSet
from unpg.data.synthetic import KFaceTwin, SyntheticFaces, Variation
from unpg.diagnose import DiagnoseOptions, diagnose_run
from unpg.embed import Model, embed
from unpg.evaluate import Distribution, all_pairs, diagnose_set
from unpg.evaluate.allpairs import count_pairs, unit_rows
from unpg.evaluate.diagnosis import SHOWN_FILTERS, Sampling
from unpg.evaluate.distractors import with_distractors
from unpg.evaluate.evidence import all_pairs_evidence
from unpg.evaluate.hardest import hardest_pairs
from unpg.evaluate.identification import search
from unpg.evaluate.sampling import ClassWeights, View
from unpg.losses import LOSSES, PairLoss, unpg
from unpg.pairs import ClassPairs, MemoryPairs
from unpg.similarity import Share
from unpg.train import TrainConfig, train

GPU = torch.cuda.is_available()


@pytest.fixture
def other():
    """The name of the other device."""
    if GPU:
        yield "cuda"
        return
    if not POSSIBLE:
        pytest.skip("no GPU, and this torch cannot pretend one")
    with pretended() as device:
        yield device


def alike(here, there):
    """Equal tensors, arrays or numbers; on a GPU but for rounding, which moves counts from one bin to the next.

    Convolutions there are in TF32, as in every run: four decimals.
    """
    a, b = (x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in (here, there))
    if not GPU:
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if a.dtype.kind == "f":
        return np.allclose(a, b, rtol=1e-2, atol=1e-3, equal_nan=True)
    a, b = a.astype(np.int64), b.astype(np.int64)
    return a.shape == b.shape and np.abs(a.cumsum() - b.cumsum()).max(initial=0) <= 1e-2 * np.abs(a).sum() + 1


# --- the device itself: it would catch what it is for ---


@pytest.mark.skipif(GPU, reason="a GPU is not pretended")
def test_a_mixture_raises(other):
    there = torch.ones(3, device=other)
    assert isinstance(there, Elsewhere)
    assert there.device.type == other
    with pytest.raises(RuntimeError, match="on the CPU among"):
        there + torch.ones(3)
    with pytest.raises(RuntimeError, match="on the CPU among"):
        there.index_select(0, torch.tensor([1]))
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()
    assert (there * torch.tensor(2.0)).cpu().tolist() == [2, 2, 2]  # a number may lie anywhere, as on a GPU


def test_its_arithmetic_is_that_of_the_cpu(other):
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    both = []
    for device in ("cpu", other):
        leaf = x.clone().to(device).requires_grad_()
        y = torch.cat([leaf.sin(), leaf[:, torch.tensor([1, 0], device=device)]], dim=1)
        y[0].mul_(2).add_(1)
        y.logsumexp(dim=1).sum().backward()
        both.append((y, leaf.grad))
    assert all(alike(a, b) for a, b in zip(*both, strict=True))


# --- losses ---

CLASSES, DIM = 40, 8


def _losses():
    for name in LOSSES:
        yield pytest.param(name, None, id=name)
        loss = LOSSES.build(name, num_classes=CLASSES, dim=DIM)
        if isinstance(loss, PairLoss) and isinstance(loss.pairs, ClassPairs) and name != "sphereface":
            yield pytest.param(name, {}, id=f"{name}-unpg")
    for change in (
        {"scope": "anchor"},
        {"weight": "balanced"},
        {"weight": Share(0.5)},
        {"join": "sum", "weight": 0.5},
        {"r": float("inf")},
        {"memory": MemoryPairs},
    ):
        yield pytest.param("arcface", change, id="arcface-" + "-".join(change))


@pytest.mark.parametrize(("name", "change"), list(_losses()))
def test_loss_and_gradients(name, change, other):
    torch.manual_seed(1)
    labels = torch.arange(24) % 9
    features = torch.randn(24, DIM) * 12
    both = []
    for device in ("cpu", other):
        torch.manual_seed(0)
        settings = {"start": 0} if name == "unitsface" else {}  # or half of it waits
        loss = LOSSES.build(name, settings, num_classes=CLASSES, dim=DIM)
        if change is not None:
            memory = MemoryPairs(32, DIM) if "memory" in change else None
            loss = unpg(loss, **change | {"memory": memory})
        loss.to(device)
        for step in range(2):  # memories and running means have something in the second
            x = features.clone().to(device).requires_grad_()
            out = loss(x, labels.to(device), step=step, sample_ids=torch.arange(24, device=device))
            loss.zero_grad()
            out.loss.backward()
        grads = [p.grad for p in loss.parameters() if p.grad is not None]
        both.append([out.loss, out.per_anchor, x.grad, *grads])
    assert all(alike(a, b) for a, b in zip(*both, strict=True))


# --- training, and what reads a run ---


def _config(patterns, device, **changes):
    values = {
        "data": {"kind": "folder", "roots": str(patterns)},
        "backbone": {"kind": "small_iresnet", "dim": 16, "widths": [4, 4, 8, 8], "blocks": [1, 1, 1, 1]},
        "preprocessing": {"size": [32, 32]},
        "loss": {"kind": "cosface", "s": 16, "m": 0.2},
        "unpg": {"start_epoch": 1, "weight": "balanced"},
        "sampler": {"batch_size": 16},
        "augment": {"flip": 0.5, "photometric": 0.5, "low_resolution": 0.5, "erasing": 0.5},
        "optim": {"lr": 5e-4},  # at 0.05 the last bit of one step is the first digit of the loss ten steps later
        "epochs": 2,
        "log_every": 2,
        "device": device,
    }
    return from_dict(TrainConfig, values | changes)


def _losses_of(run):
    with open(run / "metrics.jsonl") as file:
        return [line["loss"] for line in map(json.loads, file) if "loss" in line]


RUNS = {
    "plain": {},
    "accumulated": {"accumulate": 2},
    "sharded": {"head": {"kind": "sharded"}},
    "sampled": {"head": {"kind": "sampled", "rate": 0.5}},
    "recomputed": {"recompute": True, "channels_last": True},
    "held out": {"hold_out": 0.3, "evaluation": {"benchmarks": ["held-out"]}},
}


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS.keys())
def test_training(changes, patterns, tmp_path, other):
    train(_config(patterns, "cpu", **changes), tmp_path / "here")
    train(_config(patterns, other, **changes), tmp_path / "there")
    here, there = _losses_of(tmp_path / "here"), _losses_of(tmp_path / "there")
    assert len(here) >= 2
    assert alike(here, there)
    if changes.get("evaluation"):
        found = [json.loads((tmp_path / run / "results.json").read_text())["results"] for run in ("here", "there")]
        assert all(alike(a, b) for a, b in zip(*(list(_leaves(f)) for f in found), strict=True))


def test_a_run_goes_on_elsewhere_and_is_read_there(patterns, tmp_path, other):
    # Begun here, gone on with there: what is loaded must be moved.
    run = tmp_path / "run"
    train(_config(patterns, "cpu"), run)
    before = _losses_of(run)
    last = sorted((run / "checkpoints").iterdir())[-1]
    shutil.rmtree(last)
    train(_config(patterns, other), run, resume=True)
    assert last.exists()
    assert alike(_losses_of(run), before)
    here, there = (
        list(_leaves(diagnose_run(run, options=DiagnoseOptions(batches=3, device=device)))) for device in ("cpu", other)
    )
    assert len(here) > 10
    assert all(alike(a, b) for a, b in zip(here, there, strict=True))


def test_fine_tuning(patterns, tmp_path, other):
    train(_config(patterns, "cpu", epochs=1), tmp_path / "learned")
    init = {"model": str(tmp_path / "learned" / "model.safetensors"), "class_weights": "imprinted"}
    train(_config(patterns, "cpu", epochs=1, init=init), tmp_path / "here")
    train(_config(patterns, other, epochs=1, init=init), tmp_path / "there")
    assert alike(_losses_of(tmp_path / "here"), _losses_of(tmp_path / "there"))


def test_embedding(patterns, other):
    model = Model.create("small_iresnet", input_size=(32, 32), dim=16, widths=[4, 4, 8, 8], blocks=[1, 1, 1, 1])
    images = FolderSet(patterns)
    here, there = (embed(model, images, device=device, batch_size=7).vectors for device in ("cpu", other))
    assert alike(here, there)
    assert next(model.backbone.parameters()).device.type == "cpu"  # and back


# --- judging ---


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 15
    return (rng.normal(size=(15, 8))[labels] + 0.5 * rng.normal(size=(120, 8))).astype(np.float32), labels


def _in_any_order(pairs, cosines, same):
    return np.sort(pairs[:, 0] * 1000 + pairs[:, 1]), cosines, same  # of equal ones a GPU takes any first


JUDGES = {
    "all pairs": lambda x, y, device: all_pairs(x, y, device=device, block_rows=50, block_columns=30),
    "counts": lambda x, y, device: count_pairs(x, y, device=device),
    "evidence": lambda x, y, device: all_pairs_evidence(x, y, device=device, sample=100),
    "hardest": lambda x, y, device: _in_any_order(*hardest_pairs(x, y, 20, device=device)),
    "search": lambda x, y, device: search(x[60:], y[60:], x[:60], y[:60], device=device, block=7),
    "distractors": lambda x, y, device: with_distractors(x[:60], y[:60], x[60:], targets=(0.1,), device=device),
    "scan": lambda x, y, device: scan(unit_rows(x).numpy(), least=0.5, device=device, block_rows=50),
    "diagnosis": lambda x, y, device: diagnose_set(
        "made",
        x,
        y,
        Sampling(np.split(np.arange(120), 5), SHOWN_FILTERS, ClassWeights(torch.from_numpy(x[:15].copy()))),
        device=device,
    ),
}


@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES.keys())
def test_judging(judge, people, other):
    here, there = (list(_leaves(judge(*people, device))) for device in ("cpu", other))
    assert len(here) == len(there) > 2
    assert all(alike(a, b) for a, b in zip(here, there, strict=True))


BINS = np.linspace(-1, 1, 51)


def _leaves(value):
    """Arrays and numbers inside objects of ours, dictionaries and sequences."""
    if GPU and isinstance(value, Distribution):  # rounding parts what was equal, and joins what was not
        value = np.histogram(value.values, BINS, weights=value.counts)[0].round().astype(np.int64)
    if GPU and isinstance(value, View):  # of five batches, and a tail of a few pairs: one more or less is a lot
        value = {name: part for name, part in vars(value).items() if name != "tail_coverage_step"}
    if type(value).__module__.startswith("unpg.") and hasattr(value, "__dict__"):
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, (np.ndarray, int, float)):
        yield value


# --- rendering ---

RENDERED = {
    "faces": lambda: SyntheticFaces(4, 2, seed=4, size=(48, 48)),
    "poor and dressed": lambda: SyntheticFaces(
        4,
        2,
        seed=1,
        size=(48, 48),
        variation=Variation(
            **dict.fromkeys(("glasses", "sunglasses", "hat", "mask"), (0, 1)),
            jpeg=(10.0, 90.0),
            resolution=(0.1, 1.0),
            blur=(0, 3),
        ),
    ),
    "twin of K-FACE": lambda: KFaceTwin(10, "T4", "train", subset=12),
}


@pytest.mark.parametrize("make", RENDERED.values(), ids=RENDERED.keys())
def test_rendering(make, other):
    images = make()
    indices = range(0, len(images), 2)
    here, there = (images.render(indices, device) for device in ("cpu", other))
    assert there.images.device.type == other
    for name, one, two in zip(here._fields, here, there, strict=True):
        if GPU and name == "images":
            assert ((one.int() - two.cpu().int()).abs() > 1).double().mean() < 1e-3
        else:
            assert alike(one, two), name
