import json

import numpy as np
import pytest
import torch

from unpg.errors import DataError
from unpg.evaluate import (
    SHOWN_FILTERS,
    ClassWeights,
    Sampling,
    all_pairs,
    diagnose_pairs,
    diagnose_set,
    flip_labels,
    load_diagnosis,
    save_diagnosis,
)


@pytest.fixture(scope="module")
def cloud():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(240) % 12)
    centers = rng.normal(size=(12, 16))
    vectors = (centers[labels] + 0.4 * rng.normal(size=(240, 16))).astype(np.float32)
    batches = np.split(rng.permutation(240), 5)
    return vectors, labels, Sampling(batches, SHOWN_FILTERS, ClassWeights(torch.tensor(centers).float()))


def test_a_set_with_class_weights(cloud, tmp_path):
    vectors, labels, sampling = cloud
    found = diagnose_set("clouds", vectors, labels, sampling)
    roc = all_pairs(vectors, labels).roc
    assert found.wdfs.auc_complement == pytest.approx(1 - roc.auc)
    assert (found.images, found.identities, found.flipped) == (240, 12, 0)
    assert [sample.name for sample, _ in found.samples] == ["CLPG", "MLPG", *(f"UNPG, {f}" for f in SHOWN_FILTERS)]
    save_diagnosis(tmp_path / "new", [found], model="m")
    told = load_diagnosis(tmp_path / "new")
    assert told["model"] == "m"
    (one,) = told["sets"]
    assert one["sampling"] == {
        "batches": 5,
        "batch_size": 48,
        "scope": "batch",
        "batch_weight": 1.0,
        "balanced": False,
        "drawn": "r = 1.5",
    }
    assert sum(one["histograms"]["positives"]) == roc.genuine
    assert sum(one["histograms"]["negatives"]) == roc.impostor
    assert sum(one["histograms"]["samples"]["CLPG"]) == 240 * 11
    assert all(s["filter"] is None for s in one["samples"])
    assert not list((tmp_path / "new").glob("*.part"))


def test_planted_noise_leaves_the_truth_alone(cloud):
    vectors, labels, sampling = cloud
    honest = diagnose_set("a", vectors, labels, sampling)
    noisy = diagnose_set("a", vectors, flip_labels(labels, 0.1, 0), sampling, clean=labels)
    assert noisy.flipped == 24
    assert noisy.wdfs.to_dict() == honest.wdfs.to_dict()
    samples = {sample.name: (sample, seen) for sample, seen in noisy.samples}
    clean = {sample.name: seen for sample, seen in honest.samples}
    assert samples["MLPG"][1].tail_density > 2 * clean["MLPG"].tail_density  # noise looks like hard negatives
    assert samples["UNPG, r = 1"][0].quality.recall > 0.5
    assert samples["CLPG"][0].quality is None
    json.dumps(noisy.to_dict(), allow_nan=False)


def test_a_list_of_pairs_has_no_samples():
    vectors = np.eye(4)[[0, 0, 1, 2]]
    found = diagnose_pairs("list", vectors, [[0, 1], [0, 2], [1, 3]], [True, False, False])
    assert (found.wdfs.gap, found.samples, found.identities) == (1, (), None)
    assert found.to_dict()["sampling"] is None
    with pytest.raises(DataError, match="0 genuine"):
        diagnose_pairs("list", vectors, [[0, 2]], [False])


def test_one_identity_is_refused(cloud):
    with pytest.raises(DataError, match="two identities"):
        diagnose_set("one", np.eye(3), [0, 0, 0], Sampling([np.arange(3)], {}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist. `unpg diagnose"),
        ("{", "is not JSON"),
        ("[]", 'no list "sets"|must hold a JSON object'),
        ('{"sets": [{"name": "a"}]}', "a set lacks wdfs, samples, histograms"),
    ],
)
def test_broken_files(tmp_path, content, words):
    if content is not None:
        (tmp_path / "diagnosis.json").write_text(content)
    with pytest.raises(DataError, match=words):
        load_diagnosis(tmp_path)


def test_histograms_that_do_not_fit(cloud, tmp_path):
    vectors, labels, sampling = cloud
    path = save_diagnosis(tmp_path, [diagnose_set("a", vectors, labels, sampling)])
    content = json.loads(path.read_text())
    content["sets"][0]["histograms"]["samples"]["MLPG"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="'MLPG' has 511 entries for 512 bins"):
        load_diagnosis(tmp_path)
