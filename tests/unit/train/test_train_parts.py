"""Learning rates, the collapse monitor, the metrics log."""

import itertools
import json
import math

import pytest

from unpg.errors import ConfigError, DataError
from unpg.pairs import BoxWhisker, TopK
from unpg.similarity import Balanced, Constant, Share
from unpg.train import OptimConfig, TrainConfig, UnpgConfig
from unpg.train.config import EvaluationConfig, HeadConfig, MemoryConfig, SamplerConfig
from unpg.train.faults import write_faults
from unpg.train.log import MetricsLog, finite
from unpg.train.monitor import CollapseMonitor, early_start
from unpg.train.optim import learning_rate


def rates(config, steps=100, per_epoch=10):
    return [learning_rate(config, step, steps=steps, steps_per_epoch=per_epoch) for step in range(steps)]


def test_warmup_then_cosine():
    found = rates(OptimConfig(lr=0.4, warmup_epochs=2))
    assert found[0] == pytest.approx(0.4 / 20)
    assert found[19] == pytest.approx(0.4)
    assert found[20] == pytest.approx(0.4)
    assert found[60] == pytest.approx(0.2)
    assert 0 < found[-1] < 0.001
    assert all(a >= b for a, b in itertools.pairwise(found[20:]))


def test_steps_and_constant():
    found = rates(OptimConfig(lr=1.0, schedule="steps", milestones=(3, 5.5), gamma=0.1))
    assert [found[i] for i in (0, 29, 30, 54, 55, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert set(rates(OptimConfig(lr=0.3, schedule="constant"))) == {0.3}


def test_the_monitor_waits_for_an_epoch_and_warns_once():
    monitor = CollapseMonitor(limit=0.5, patience=2)
    collapsed = {"cosine/pairwise": 0.9, "share/batch": 0.95, "share/classes": 0.01, "effective_rank": 3.0}
    assert monitor.look(0.5, collapsed) is None
    assert monitor.look(1.0, collapsed) is None
    text = monitor.look(1.1, collapsed)
    assert "0.90" in text
    assert "95%" in text
    for advice in ("unpg.weight", "unpg.start_epoch", "loss.s"):
        assert advice in text
    assert monitor.look(1.2, collapsed) is None
    assert monitor.look(1.3, collapsed | {"cosine/pairwise": 0.1}) is None
    assert monitor.look(1.4, collapsed) is None
    assert monitor.look(1.5, collapsed) is not None


def test_unpg_that_begins_too_early_is_told_once():
    before, now = {"share/target": 0.004, "share/classes": 0.996}, {"share/target": 1e-4, "share/batch": 0.9}
    assert "0.40%" in early_start(before, now)
    assert "unpg.start_epoch" in early_start(before, now)
    assert early_start(before | {"share/batch": 0.0}, now) is not None  # as it waits it has no share
    assert early_start(now, now) is None  # it had begun
    assert early_start(before, before) is None  # it has not
    assert early_start({}, now) is None  # from the first step
    assert early_start(before | {"share/target": 0.02}, now) is None
    assert early_start({"loss": 1.0}, now) is None  # a loss without a denominator


def test_the_monitor_blames_the_rate_where_there_are_no_batch_negatives():
    monitor = CollapseMonitor(patience=1)
    assert "optim.lr" in monitor.look(2.0, {"cosine/pairwise": 0.99, "share/classes": 0.99})
    assert monitor.look(2.0, {"cosine/pairwise": math.nan}) is None


def test_the_log_drops_steps_that_will_be_written_again(tmp_path):
    log = MetricsLog(tmp_path, keep_until=0)
    for step in (1, 2, 3):
        log.write("step", step, step / 2, loss=math.inf, statistics={"a": math.nan, "b": 1.0})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "st')  # killed in mid-line
    log = MetricsLog(tmp_path, keep_until=2)
    log.write("step", 3, 1.5, loss=1.0)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, None), (2, None), (3, 1.0)]
    assert lines[0]["statistics"] == {"a": None, "b": 1.0}


def test_finite_goes_deep():
    assert finite({"a": {"b": -math.inf}, "c": 1, "d": "x"}) == {"a": {"b": None}, "c": 1, "d": "x"}


def test_the_filter_of_a_recipe():
    assert UnpgConfig(r=1.0).filter() == BoxWhisker(1.0)
    assert UnpgConfig(keep={"kind": "box-whisker", "r": 1.0, "sides": "upper"}).filter() == BoxWhisker(1.0, "upper")
    assert UnpgConfig(keep={"kind": "top-k", "k": 7}).filter() == TopK(7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": {"k": 3}}, r"unpg.keep needs a kind, one of all, box-whisker, quantile, top-k"),
        ({"keep": {"kind": "top-k", "q": 3}}, "no setting 'q'"),
        ({"keep": {"kind": "topk"}}, "Did you mean 'top-k'"),
        ({"keep": {"kind": "all"}, "r": 2.0}, "unpg.r is 2.0, but unpg.keep names the filter"),
    ],
)
def test_a_wrong_filter_is_said_before_training(settings, message):
    with pytest.raises(ConfigError, match=message):
        UnpgConfig(**settings)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (OptimConfig, {"kind": "adam"}, "optim.kind must be one of sgd, adamw; got 'adam'"),
        (OptimConfig, {"schedule": "linear"}, "optim.schedule must be one of cosine, steps, constant"),
        (OptimConfig, {"warmup_epochs": math.inf}, "optim.warmup_epochs must be a finite number of epochs >= 0"),
        (OptimConfig, {"schedule": "steps", "milestones": (math.inf,)}, "optim.milestones must be a finite"),
        (OptimConfig, {"weight_decay": math.inf}, "optim.weight_decay"),
        (HeadConfig, {"kind": "shard"}, "head.kind must be one of full, sharded, sampled"),
        (HeadConfig, {"init_std": 0.0}, "head.init_std must be a finite number > 0, got 0.0"),
        (HeadConfig, {"init_std": math.inf}, "head.init_std must be a finite"),
        (SamplerConfig, {"kind": "p-k"}, "sampler.kind must be one of uniform, pk"),
        (EvaluationConfig, {"flip": "both"}, "evaluation.flip must be one of none, sum, concat"),
        (EvaluationConfig, {"every_epochs": math.inf}, "evaluation.every_epochs must be a finite number of epochs > 0"),
        (UnpgConfig, {"scope": "row"}, "unpg.scope must be one of"),
        (UnpgConfig, {"join": "sums"}, "unpg.join must be one of union, sum"),
        (UnpgConfig, {"weight": "half"}, "A weight is a number"),
        (UnpgConfig, {"start_epoch": math.inf}, "unpg.start_epoch must be a finite number of epochs >= 0, got inf"),
        (UnpgConfig, {"ramp_epochs": math.nan}, "unpg.ramp_epochs must be a finite"),
        (MemoryConfig, {"size": 1, "start_epoch": math.inf}, "unpg.memory.start_epoch must be a finite"),
        (UnpgConfig, {"rho": 0.1}, "unpg.rho is 0.1, but unpg.weight 1.0 has no rho: set unpg.weight: balanced"),
        (UnpgConfig, {"weight": "balanced", "share": 0.9}, "unpg.share is 0.9, but unpg.weight balanced has no share"),
        (TrainConfig, {"data": {"kind": "folder"}, "precision": "half"}, "precision must be one of fp32, bf16, fp16"),
        (TrainConfig, {"data": {"kind": "folder"}, "timeout": math.inf}, "timeout must be a finite"),
        (TrainConfig, {"data": {"kind": "folder"}, "checkpoint_epochs": math.inf}, "checkpoint_epochs must be a"),
    ],
)
def test_settings_made_in_python_are_checked_too(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


def test_a_setting_without_a_part_may_stand_at_its_default():
    assert UnpgConfig(weight=2, rho=1.0, share=0.5).rule(1) == Constant(2.0)
    assert UnpgConfig(weight="balanced", rho=0.1, share=0.5).rule(1) == Balanced(0.1)
    assert UnpgConfig(weight="share", rho=1.0, share=0.9).rule(1) == Share(0.9)


@pytest.mark.parametrize("line", [b"\xff", b"[" * 100_000, b"3", b'{"step": "x"}', b"9" * 5000, b'{"step": 1'])
def test_a_log_line_that_is_none_of_ours_does_not_stop_a_resumed_run(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    MetricsLog(tmp_path, keep_until=1).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("line", [b"\xff", b"[" * 100_000, b"3", b"{}", b'{"sample_id": "x"}'])
def test_a_broken_line_of_faults_is_named(tmp_path, line):
    (tmp_path / "faults.jsonl").write_bytes(b'{"sample_id": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"faults\.jsonl, line 2"):
        write_faults(tmp_path, [])
    (tmp_path / "faults.jsonl").write_bytes(b'{"sample_id": 1}\n')
    assert write_faults(tmp_path, []) == 1
