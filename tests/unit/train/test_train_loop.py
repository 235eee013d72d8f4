"""Training from a configuration to a run folder: it learns, it resumes exactly, it reports what went wrong."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console

from unpg.cli.main import main
from unpg.config import from_dict, read_yaml
from unpg.data.synthetic import SyntheticFaces
from unpg.data.synthetic.write import write_faces
from unpg.diagnose import DiagnoseOptions, diagnose_run
from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate import save_diagnosis
from unpg.export import load_model
from unpg.losses import LOSSES, LossOutput, PairLoss
from unpg.train import TrainConfig, loop, train
from unpg.train.checkpoint import latest_checkpoint, load_checkpoint
from unpg.train.loop import TrainingError


def events(run, kind):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def weights(run):
    return load_model(run / "model.safetensors").backbone.state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


UNPG = {"r": 1.5, "weight": "balanced", "start_epoch": 1, "ramp_epochs": 0.5}
SHARE = {"weight": "share", "share": 0.1, "start_epoch": 1}


@pytest.mark.parametrize("unify", [None, UNPG])
def test_a_run_learns_and_leaves_everything(tiny, tmp_path, unify):
    trained = train(
        tiny(epochs=6, unpg=unify, hold_out=0.25, evaluation={"benchmarks": ["held-out"], "every_epochs": 3}),
        tmp_path / "run",
    )
    summary = trained.summary
    run = tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "model.safetensors", "results.json", "scores"} < names
    assert {"similarities.json", "summary.json"} < names
    steps = events(run, "step")
    assert steps[-1]["step"] == summary.steps == 6 * 3
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert summary.identities == 6
    assert {e["step"] for e in events(run, "evaluation")} == {9, 18}
    assert summary.results["held-out"]["auc"] > 0.9
    counts = json.loads((run / "similarities.json").read_text())["counts"]
    assert sum(counts["class_negatives"]) == sum(counts["positives"]) * 5
    assert sum(counts["evaluation_genuine"]) == 2 * 28
    assert sum(counts["evaluation_impostor"]) == 64
    if unify:
        share = {e["step"]: e["statistics"]["share/batch"] for e in steps}
        assert share[2] == 0
        assert share[12] > 0
        assert 0 < sum(counts["batch_negatives_kept"]) <= sum(counts["batch_negatives"])


def test_magface_with_unpg_trains(tiny, tmp_path):
    train(tiny(loss={"kind": "magface", "s": 16}, unpg=UNPG, epochs=6), tmp_path / "run")
    steps = events(tmp_path / "run", "step")
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert 0 <= steps[-1]["statistics"]["norm/clamped"] <= 1


@pytest.mark.parametrize("kind", [kind for kind in LOSSES if kind not in ("cosface", "magface")])
def test_every_loss_trains_from_a_recipe(tiny, tmp_path, kind):
    """By name, with the scale of a small problem, in chunks; the run leaves its picture."""
    settings = {"kind": kind} | ({"s": 16} if "s" in LOSSES.settings(kind) else {})
    pk = {"kind": "pk", "batch_size": 16, "images_per_identity": 4}
    train(tiny(loss=settings, epochs=1, sampler=pk, streaming={"chunk": 3, "keep_mib": 0}), tmp_path / "run")
    step = events(tmp_path / "run", "step")[-1]
    assert np.isfinite(step["loss"])
    assert step["statistics"]["units"] > 0
    assert sum(json.loads((tmp_path / "run" / "similarities.json").read_text())["counts"]["positives"]) > 0


def test_a_loss_without_class_weights_learns(tiny, tmp_path):
    pk = {"kind": "pk", "batch_size": 16, "images_per_identity": 4}
    options = {"hold_out": 0.25, "evaluation": {"benchmarks": ["held-out"]}, "optim": {"lr": 0.02}}
    trained = train(tiny(loss={"kind": "infonce"}, sampler=pk, epochs=6, **options), tmp_path / "run")
    steps = events(tmp_path / "run", "step")
    assert steps[-1]["loss"] < 0.7 * steps[0]["loss"]
    assert trained.summary.results["held-out"]["auc"] > 0.9


def test_few_positives_are_said(tiny, tmp_path):
    out = io.StringIO()
    few = tiny(loss={"kind": "triplet"}, sampler={"batch_size": 8}, epochs=1)
    train(few, tmp_path / "run", console=Console(file=out, width=200))
    assert "0.78 others of its person on average. Set sampler.kind: pk" in out.getvalue()
    for name, fine in ("enough", {"loss": {"kind": "triplet"}}), ("classes", {"sampler": {"batch_size": 8}}):
        out = io.StringIO()
        train(tiny(epochs=1, **fine), tmp_path / name, console=Console(file=out))
        assert "Warning" not in out.getvalue()


def test_a_memory_resumes_exactly(tiny, tmp_path, monkeypatch):
    """The queue, its place and the batch that waits are part of the checkpoint."""
    memory = {"size": 24, "start_epoch": 0.5, "weight": 0.5, "follow": True}
    config = tiny(unpg={"weight": 1.0, "memory": memory}, checkpoint_epochs=0.75)
    train(config, tmp_path / "whole")
    save = loop._Trainer.save

    def killed(self):
        save(self)
        if self.step == 6:
            raise _Killed

    monkeypatch.setattr(loop._Trainer, "save", killed)
    with pytest.raises(_Killed):
        train(config, tmp_path / "cut")
    monkeypatch.setattr(loop._Trainer, "save", save)
    train(config, tmp_path / "cut", resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    kept = [e["statistics"]["memory/kept"] for e in events(tmp_path / "whole", "step")]
    assert kept[0] == 0
    assert kept[-1] > 0


class _Killed(Exception):
    pass


@pytest.mark.parametrize("stop_at", [3, 5, 8])
def test_resuming_in_mid_epoch_changes_nothing(tiny, tmp_path, monkeypatch, stop_at):
    """Killed after a step, whether at a checkpoint or past one: the final weights are the same, bit for bit."""
    backbone = {"kind": "small_iresnet", "dim": 16, "widths": [4, 4, 8, 8], "blocks": [1, 1, 1, 1], "dropout": 0.3}
    config = tiny(unpg=UNPG, backbone=backbone, checkpoint_epochs=0.75)  # every 3 of 4 steps
    train(config, tmp_path / "whole")

    step = loop.Stepper.__call__

    def killed(self, batch, epoch, number):
        if number == stop_at:
            raise _Killed
        return step(self, batch, epoch, number)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Stepper, "__call__", killed)
        with pytest.raises(_Killed):
            train(config, tmp_path / "broken")
    torch.manual_seed(99)  # nothing may depend on what the process did before
    train(config, tmp_path / "broken", resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    whole, broken = (events(tmp_path / name, "step") for name in ("whole", "broken"))
    assert [(e["step"], e["loss"]) for e in whole] == [(e["step"], e["loss"]) for e in broken]


def test_evaluations_closer_than_a_step_come_at_every_step(tiny, tmp_path):
    judged = {"benchmarks": ["held-out"], "every_epochs": 0.1}
    train(tiny(epochs=1, hold_out=0.25, evaluation=judged), tmp_path / "run")
    assert [e["step"] for e in events(tmp_path / "run", "evaluation")] == [1, 2, 3]


def test_a_resumed_run_has_each_skipped_step_once(tiny, tmp_path, monkeypatch):
    """The step after the checkpoint is done again, and is bad again."""
    config = tiny(epochs=1, checkpoint={"every_steps": 2})
    step = loop.Stepper.__call__

    def bad(self, batch, epoch, number):
        done = step(self, batch, epoch, number)
        if number == 3 and not (tmp_path / "again").exists():
            raise _Killed
        return done._replace(updated=done.updated and number != 2)

    monkeypatch.setattr(loop.Stepper, "__call__", bad)
    with pytest.raises(_Killed):
        train(config, tmp_path / "run")
    (tmp_path / "again").touch()
    train(config, tmp_path / "run", resume=True)
    assert [e["step"] for e in events(tmp_path / "run", "skipped")] == [3]


def test_the_saved_configuration_repeats_the_run(tiny, tmp_path):
    train(tiny(epochs=1), tmp_path / "a")
    again = from_dict(TrainConfig, read_yaml(tmp_path / "a" / "config.yaml"))
    assert again.loss["m"] == 0.2
    train(again, tmp_path / "b")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_a_filter_that_keeps_all_is_a_setting_like_others(tiny, tmp_path):
    """An infinite r is in YAML and not in JSON: the run must end, be diagnosed and reported all the same."""
    train(tiny(epochs=2, unpg={**UNPG, "r": float("inf")}), tmp_path / "run")
    assert "r: .inf" in (tmp_path / "run" / "config.yaml").read_text()
    assert load_model(tmp_path / "run" / "model.safetensors").info["trained_with"]["unpg"]["r"] == ".inf"
    again = from_dict(TrainConfig, read_yaml(tmp_path / "run" / "config.yaml"))
    assert again.unpg.r == float("inf")
    (found, *_) = diagnose_run(tmp_path / "run", options=DiagnoseOptions(device="cpu"))
    save_diagnosis(tmp_path / "run", [found])
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "report.html")]) == 0


def test_a_run_that_keeps_its_best_checkpoint_is_diagnosed(tiny, tmp_path):
    judged = {"benchmarks": ["held-out"], "every_epochs": 1}
    config = tiny(epochs=2, hold_out=0.25, evaluation=judged, checkpoint={"best": "held-out/auc"})
    train(config, tmp_path / "run")
    assert len(diagnose_run(tmp_path / "run", options=DiagnoseOptions(device="cpu"))) > 0


def test_a_run_is_not_overwritten_nor_resumed_with_other_settings(tiny, tmp_path):
    config = tiny(epochs=1)
    train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="already holds a run.*--resume"):
        train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="epochs was 1, is now 2"):
        train(tiny(epochs=2), tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="holds no run to resume"):
        train(config, tmp_path / "other", resume=True)


def test_a_run_that_cannot_start_leaves_nothing_behind(tiny, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        train(tiny(data={"kind": "folder", "roots": str(tmp_path / "nowhere")}), tmp_path / "run")
    with pytest.raises(ShapeError, match="the training set: Images of 32 x 32 would be distorted to 32 x 16"):
        train(tiny(preprocessing={"size": [32, 16]}), tmp_path / "run")
    write_faces(SyntheticFaces(4, 2, size=(32, 48)), tmp_path / "wide")
    with pytest.raises(ShapeError, match="wide/images: Images of 32 x 48 would be distorted to 32 x 32"):
        train(tiny(evaluation={"benchmarks": [str(tmp_path / "wide/images")]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_changed_data_are_not_resumed(tiny, patterns, tmp_path):
    shutil.copytree(patterns, tmp_path / "data")
    config = tiny(epochs=1, data={"kind": "folder", "roots": str(tmp_path / "data")})
    train(config, tmp_path / "run")
    (tmp_path / "data" / "id0" / "0.png").unlink()
    with pytest.raises(ConfigError, match="not the one that the checkpoint"):
        train(config, tmp_path / "run", resume=True)


def test_an_unreadable_image_is_replaced_counted_and_listed(tiny, patterns, tmp_path):
    shutil.copytree(patterns, tmp_path / "data")
    broken = tmp_path / "data" / "id3" / "5.png"
    broken.write_bytes(broken.read_bytes()[:200])
    config = tiny(epochs=1, data={"kind": "folder", "roots": str(tmp_path / "data")})
    console = Console(record=True, width=1000, file=io.StringIO())
    summary = train(config, tmp_path / "run", console=console).summary
    assert summary.unreadable == 1
    assert f"Unreadable: {broken}" in console.export_text()
    fault = json.loads((tmp_path / "run" / "faults.jsonl").read_text())
    assert fault["name"] == str(broken)
    assert "id3" in fault["substitute"]


def test_steps_that_are_not_finite_are_skipped_then_stop_the_run(tiny, tmp_path, monkeypatch):
    forward = PairLoss.forward

    def broken(self, x, labels, *, step, **more):
        out = forward(self, x, labels, step=step, **more)
        bad = out.loss * (float("nan") if step >= 4 else 1.0)
        return LossOutput(bad, out.per_anchor, out.statistics)

    monkeypatch.setattr(PairLoss, "forward", broken)
    with pytest.raises(TrainingError, match="3 steps in a row, the last of them step 7.*optim.lr"):
        train(tiny(max_bad_steps=3), tmp_path / "run")
    assert [e["step"] for e in events(tmp_path / "run", "skipped")] == [5, 6, 7]
    for value in load_checkpoint(latest_checkpoint(tmp_path / "run")).tensors.values():
        assert torch.isfinite(value.float()).all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(tiny, tmp_path, precision):
    train(tiny(epochs=4, precision=precision, channels_last=True), tmp_path / "run")
    steps = events(tmp_path / "run", "step")
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_micro_batches_give_the_gradient_of_the_whole(tiny, tmp_path):
    """A class loss is a mean over images; with batch norm in evaluation mode, parts add up to the whole."""
    grads = []
    for accumulate in (1, 4):
        setup = loop.prepare(loop.resolve(tiny(accumulate=accumulate, optim={"lr": 1e-9}, augment={"flip": 0.0})))
        trainer = loop._Trainer(setup, tmp_path, None)
        setup.model.backbone.eval()
        setup.model.backbone.train = lambda mode=True: None
        batch = next(iter(trainer.loader.epoch(0)))
        trainer.stepper(batch, 0, 0)
        grads.append(
            [p.grad.clone() for p in setup.loss.parameters()] + [p.grad for p in setup.model.backbone.parameters()]
        )
    for whole, parts in zip(*grads, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_pk_sampler_and_adamw_with_clipping(tiny, tmp_path):
    optim = {"kind": "adamw", "lr": 1e-3, "clip_norm": 1.0, "schedule": "steps", "milestones": [1]}
    train(tiny(sampler={"kind": "pk", "batch_size": 16, "images_per_identity": 4}, optim=optim), tmp_path / "run")
    assert events(tmp_path / "run", "step")[-1]["lr"] == pytest.approx(1e-4)


def test_tensorboard_events_are_written(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    train(tiny(epochs=1, tensorboard=True), tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": {"rate": 0.5}}, "set head.kind: sampled"),
        ({"head": {"kind": "sampled", "rate": 0}}, "a part of the classes"),
        ({"accumulate": 3}, "multiple of accumulate"),
        ({"evaluation": {"benchmarks": ["held-out"]}}, "hold_out is 0"),
        ({"optim": {"milestones": [1]}}, "schedule: steps"),
        ({"optim": {"schedule": "steps"}}, "give optim.milestones"),
        ({"optim": {"lr": 0.0}}, "optim.lr"),
        ({"sampler": {"kind": "pk", "batch_size": 10, "images_per_identity": 4}}, "multiple of sampler.images"),
        ({"loss": {"s": 3}}, "loss.kind is missing"),
        ({"unpg": {"weight": -1.0}}, ">= 0"),
        ({"unpg": {"weight": "share", "share": 1.0}}, "between 0 and 1"),
        ({"epochs": 0}, "epochs must be >= 1"),
        ({"hold_out": 1.0}, "hold_out"),
    ],
)
def test_settings_that_contradict(tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"kind": "cosface", "margin": 1}}, "no setting 'margin'"),
        ({"loss": {"kind": "cosface", "num_classes": 8}}, "not set by hand"),
        ({"loss": {"kind": "triplet"}, "unpg": UNPG}, "loss.kind triplet is none.*unpg: null"),
        ({"loss": {"kind": "mixface"}, "unpg": UNPG}, "loss.kind mixface is none"),
        ({"loss": {"kind": "sphereface"}, "unpg": UNPG}, 'scope="anchor"'),
        ({"loss": {"kind": "triplet", "mining": "easy"}}, "all, hard, semihard"),
        ({"loss": {"kind": "triplet"}, "head": {"init_std": 0.1}}, "head.init_std is about .*kind triplet has none"),
        ({"loss": {"kind": "uss"}, "head": {"kind": "sampled", "rate": 0.5}}, "head.kind, head.rate is about class"),
        ({"streaming": {"kernel": "triton"}}, "need Triton"),
        ({"backbone": {"kind": "resnet"}}, "No backbone is called 'resnet'"),
        ({"data": {"kind": "foldr"}}, "Did you mean 'folder'"),
        ({"device": "cuda:0"}, "no GPU here"),
        ({"device": "toaster"}, "device must be"),
        ({"sampler": {"batch_size": 1000}}, "batch_size"),
    ],
)
def test_settings_that_do_not_fit(tiny, tmp_path, changes, message):
    if "device" in changes and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=message):
        train(tiny(**changes), tmp_path / "run")


def test_data_root_is_put_in_place_of_its_variable(tiny, patterns, tmp_path, monkeypatch):
    monkeypatch.setenv("UNPG_DATA", str(patterns.parent))
    config = tiny(epochs=1, data={"kind": "folder", "roots": f"$UNPG_DATA/{patterns.name}"})
    assert train(config, tmp_path / "run").summary.identities == 8
    assert "$UNPG_DATA" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize("kind", ["full", "sharded", "sampled"])
def test_class_weights_begin_as_long_as_asked(tiny, kind):
    begun = [loop.prepare(loop.resolve(tiny(head={"kind": kind, **given}))) for given in ({}, {"init_std": 0.25})]
    short, long = (setup.loss.pairs.head.weight.detach() for setup in begun)
    assert short.std().item() == pytest.approx(0.01, rel=0.3)
    torch.testing.assert_close(long, 25 * short)  # the same draw


@pytest.mark.parametrize(("unpg", "told"), [({"start_epoch": 1}, 1), ({}, 0), (SHARE, 0), (None, 0)])
def test_a_start_of_unpg_that_comes_too_early_is_told(tiny, tmp_path, unpg, told):
    """At this scale eight classes leave a positive no part of the denominator."""
    train(tiny(epochs=2, log_every=1, loss={"kind": "cosface", "s": 64, "m": 0.9}, unpg=unpg), tmp_path / "run")
    warnings = [event["text"] for event in events(tmp_path / "run", "warning")]
    assert len([text for text in warnings if "hardly knows" in text]) == told


def test_a_memory_follows_the_settings_of_unpg(tiny):
    """Scope, filter and start reach the queue; the weights it follows are those of the loss."""
    memory = {"size": 24, "start_epoch": 0.5, "follow": True}
    keep = {"kind": "top-k", "k": 7}
    setup = loop.prepare(loop.resolve(tiny(unpg={"scope": "anchor", "keep": keep, "memory": memory})))
    queue = setup.loss.pairs.memory
    assert (queue.scope, queue.keep.k, queue.start) == ("anchor", 7, round(0.5 * setup.steps_per_epoch))
    assert queue._head[0] is setup.loss.pairs.of.head
    assert setup.loss.pairs.memory_weight == setup.loss.pairs.weight
    plain = loop.prepare(loop.resolve(tiny(unpg={"memory": {"size": 24, "weight": 0.25}})))
    assert plain.loss.pairs.memory.scope == "batch"
    assert plain.loss.pairs.memory._head == (None,)
    assert plain.loss.pairs.memory_weight.value == 0.25


def test_a_loss_is_told_which_images_it_sees(tiny, tmp_path, monkeypatch):
    forward, seen = PairLoss.forward, []

    def noted(self, x, labels, *, step, sample_ids, **more):
        seen.append((step, sample_ids))
        return forward(self, x, labels, step=step, sample_ids=sample_ids, **more)

    monkeypatch.setattr(PairLoss, "forward", noted)
    train(tiny(epochs=1), tmp_path / "run")
    assert [step for step, _ in seen] == list(range(len(seen)))
    assert torch.cat([ids for _, ids in seen]).unique().numel() == 64  # every image of the epoch, by its own number


def test_unpg_that_never_begins_is_said(tiny, tmp_path):
    for start, said in ((1, True), (0.5, False)):
        out = io.StringIO()
        late = tiny(unpg={"start_epoch": start}, epochs=1)
        train(late, tmp_path / str(start), console=Console(file=out, width=200))
        assert (f"unpg.start_epoch is {start}, and after 1 epochs the run is over" in out.getvalue()) == said
