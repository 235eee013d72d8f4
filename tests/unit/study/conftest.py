"""A study over small patterns, and results made for it without training."""

import numpy as np
import pytest
import yaml

from unpg.study import Plan, Results, read_study

BASE = {
    "backbone": {"kind": "small_iresnet", "dim": 16, "widths": [4, 4, 8, 8], "blocks": [1, 1, 1, 1]},
    "preprocessing": {"size": [32, 32]},
    "loss": {"kind": "cosface", "s": 16, "m": 0.2},
    "sampler": {"batch_size": 16},
    "optim": {"lr": 0.05},
    "epochs": 3,
    "log_every": 2,
    "device": "cpu",
}


@pytest.fixture
def values(patterns):
    """What the file of a study says."""
    return {
        "name": "made",
        "base": {"data": {"kind": "folder", "roots": str(patterns)}, **BASE},
        "arms": {
            "cosface": {"label": "CosFace", "trials": [{"loss": {"s": 16}}, {"loss": {"s": 8}}]},
            "unpg": {"of": "cosface", "set": {"unpg": {"weight": 1.0}}, "trials": [{}, {"unpg": {"start_epoch": 1}}]},
        },
        "seeds": [0, 1, 2],
        "tuning": {"figure": "eer", "hold_out": 0.25},
        "benchmarks": ["test"],
        "primary": "test/tar@far=1e-2",
        "secondary": ["test/eer"],
        "intervals": {"replicates": 40},
    }


@pytest.fixture
def planned(tmp_path):
    """A function from what the file says to its plan; results lie in the test's folder."""

    def make(values, results="made.jsonl") -> Plan:
        path = tmp_path / "made.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        study, base = read_study(path)
        return Plan(study, base, Results(tmp_path / results))

    return make


@pytest.fixture
def finish():
    """A function that gives a run a result: scores of its benchmark, and for a final run replicates of them."""

    def make(plan: Plan, run, scores, replicates=None, *, diverged="") -> None:
        line = {"arm": run.arm, "trial": run.trial, "seed": run.seed, "digest": run.digest, "diverged": diverged}
        if run.trial is not None:
            plan.results.append({**line, "scores": {} if diverged else {"held-out": scores}})
            return
        told = {"figures": sorted(scores), "seed": 0, "unit": "identity", "digest": "d", "effective_units": 50.0}
        if replicates is not None:
            path = plan.results.replicates_path(run.digest)
            path.parent.mkdir(exist_ok=True)
            np.savez(path, test=np.stack([replicates[f] for f in sorted(scores)], axis=1).astype(np.float32))
        plan.results.append(
            {
                **line,
                "scores": {"test": scores},
                "intervals": {"test": {**told, "replicates": 40}},
                "similarities": {"test": {"overlap": 0.1}},
                "by_epoch": {"share/classes": [0.5, 0.25], "share/batch": [0.5, 0.25], "grad_norm": [2.0, 1.0]}
                | {"cosine/pairwise": [0.1, 0.0]},
                "curves": {"test": {"far": [1e-3, 1e-2], "tar": [0.1, 0.3]}},
            }
        )

    return make
