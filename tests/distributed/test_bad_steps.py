"""What is not finite in one process, and half precision: all processes do the same."""

import json
import math

import pytest
import torch
from processes import run_processes
from test_step import BASE

from unpg.config import from_dict
from unpg.data import Batch
from unpg.distributed import ALONE
from unpg.train import TrainConfig, TrainingError, train
from unpg.train.setup import prepare, resolve
from unpg.train.state import flatten
from unpg.train.step import Stepper

BAD = 1  # the step that is spoiled
SCALE = {"scale": 64.0}  # torch's own 65,536 is too much for the first steps


def config(**changes):
    return from_dict(TrainConfig, BASE | {"head": {"kind": "sharded"}} | changes)


def step_of(setup, stepper, step):
    epoch, at = divmod(step, setup.steps_per_epoch)
    rows = setup.sampler.batch(epoch, at)
    images = torch.stack([torch.from_numpy(setup.images.read(int(i))) for i in rows])
    return stepper(Batch(images, torch.from_numpy(setup.images.labels[rows]), torch.from_numpy(rows)), epoch, step)


def state(setup):
    """What a step may move, copied: statistics and memories of losses too."""
    found = {f"backbone/{name}": value for name, value in setup.model.backbone.state_dict().items()}
    found |= flatten(setup.loss.state_dict(), "loss")[1]
    for i, of_one in enumerate(setup.optimizer.state.values()):
        found[f"momentum/{i}"] = of_one["momentum_buffer"]
    return {name: value.detach().clone() for name, value in found.items()}


def spoil(setup, place, now):
    """Let something in this process not be finite while ``now()``."""

    def output(module, inputs, features):
        return features * math.nan if now() else features

    def gradient(module, inputs, features):
        if features.requires_grad:
            features.register_hook(lambda grad: grad * math.inf if now() else grad)

    network = setup.model.backbone
    if place == "network":
        next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d)).register_forward_hook(output)
    elif place == "features":
        network.register_forward_hook(output)
    elif place == "gradient":
        network.register_forward_hook(gradient)
    else:  # these gradients are this process's alone: nothing else tells the others
        setup.loss.pairs.head.weight.register_hook(lambda grad: grad * math.inf if now() else grad)


def skipped(world, place, changes):
    """One step is spoiled in the last process."""
    setup = prepare(resolve(config(**changes)), world)
    stepper = Stepper(setup)
    stepper.scaler.load_state_dict({**stepper.scaler.state_dict(), **SCALE} if stepper.scaler.is_enabled() else {})
    at = [0]
    if world.rank == world.size - 1:
        spoil(setup, place, lambda: at[0] == BAD)
    losses, scales = [], []
    for at[0] in range(4):
        before = state(setup)
        done = step_of(setup, stepper, at[0])
        after = state(setup)
        assert done.updated == (at[0] != BAD), f"step {at[0]}: {done.out.loss}, {done.grad_norm}"
        moved = [name for name, value in after.items() if name not in before or not torch.equal(value, before[name])]
        assert bool(moved) == done.updated, moved
        assert all(value.isfinite().all() for value in after.values())
        losses.append(float(done.out.loss))
        scales.append(stepper.scaler.get_scale())
    return losses, scales


CASES = [
    ("network", {}),
    ("features", {"unpg": {"memory": {"size": 24, "follow": True}}}),
    ("gradient", {"loss": {"kind": "adaface", "s": 8.0}, "optim": {"lr": 0.05, "clip_norm": 1.0}}),
    ("class weights", {}),
    ("class weights", {"precision": "fp16"}),
]


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        *CASES[1:3],
        ("gradient", {"loss": {"kind": "curricularface", "s": 8.0}}),
        ("gradient", {"loss": {"kind": "unitsface", "s": 8.0, "start": 0}}),
        ("gradient", {"unpg": {"memory": {"size": 24}}, "accumulate": 2, "pairs": "micro"}),
    ],
    ids=str,
)
def test_a_step_that_is_not_finite_moves_nothing(place, changes):
    skipped(ALONE, place, changes)


def all_skipped(world):
    return [skipped(world, *case) for case in CASES]


def test_a_step_that_is_not_finite_in_one_process_moves_nothing_in_any(tmp_path):
    found = run_processes(2, tmp_path, all_skipped)
    for (place, _), (one, scales), (other, others) in zip(CASES, *found, strict=True):
        assert one == pytest.approx(other, rel=1e-6, nan_ok=True), place
        assert all(math.isfinite(loss) for step, loss in enumerate(one) if step != BAD), place
        assert math.isfinite(one[BAD]) == (place in ("gradient", "class weights")), place
        assert scales == others, place
    # The last case has a scaler, which alone has seen in the one process what the others go by.
    assert [scale / SCALE["scale"] for scale in scales] == [1.0, 0.5, 0.5, 0.5]


def half(world):
    return {precision: in_precision(world, precision) for precision in ("bf16", "fp16")}


def in_precision(world, precision):
    setup = prepare(resolve(config(precision=precision, unpg={"r": 1.0})), world)
    stepper = Stepper(setup)
    done = [step_of(setup, stepper, step) for step in range(8)]
    assert done[-1].updated
    told = [(float(d.out.loss), float(stepper.scaler.get_scale()), d.updated) for d in done]
    return told, next(setup.model.backbone.parameters()).detach().clone()


def test_half_precision_is_the_same_in_all_processes(tmp_path):
    one, other = run_processes(2, tmp_path, half)
    for precision, (told, weights) in one.items():
        assert told == other[precision][0]
        assert torch.equal(weights, other[precision][1])
        assert all(math.isfinite(loss) for loss, _, _ in told)
        assert all(updated for _, _, updated in told) or precision == "fp16"  # whose scale comes down at first


def trained_to_the_end(world, run):
    """From the third step on nothing is finite in the last process."""
    if world.rank == world.size - 1:
        real = Stepper.__call__

        def call(self, batch, epoch, step):
            self.setup.loss.pairs.head.weight.register_hook(lambda grad: grad * math.nan if step >= 2 else grad)
            return real(self, batch, epoch, step)

        Stepper.__call__ = call  # this process is the test's own
    try:
        train(config(max_bad_steps=3, hold_out=0.0, epochs=9), run, world=world)
    except TrainingError as error:
        return str(error)
    return None


def test_too_many_such_steps_stop_all_processes_with_one_message(tmp_path):
    one, other = run_processes(2, tmp_path / "meeting", trained_to_the_end, tmp_path / "run")
    assert one == other
    assert "not finite in 3 steps in a row, the last of them step 5 " in one
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "skipped"] == [3, 4, 5]
