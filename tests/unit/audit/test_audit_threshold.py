import numpy as np
import pytest

from unpg.audit import Threshold, threshold_at
from unpg.errors import ConfigError, DataError
from unpg.evaluate.allpairs import RESOLUTION, count_pairs


def strangers(embeddings, labels):
    """Cosines of all pairs of two identities, in a double loop, rounded as documented."""
    x = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.array(
        [
            np.round(x[i] @ x[j] / RESOLUTION) * RESOLUTION
            for i in range(len(x))
            for j in range(i + 1, len(x))
            if labels[i] != labels[j]
        ]
    )


@pytest.mark.parametrize("fmr", [1e-3, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("kind", ["normal", "corners"])
def test_it_is_the_smallest_that_is_strict_enough(fmr, kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 8)) if kind == "normal" else rng.choice([-1.0, 1.0], (90, 12))
    labels = rng.integers(0, 12, 90)
    found = threshold_at(count_pairs(x, labels), fmr, "made")
    scores = strangers(x, labels)
    assert found.strangers == len(scores)
    assert found.accepted == (scores >= found.value).sum()
    assert (scores >= found.value).mean() <= fmr
    assert (scores >= found.value - RESOLUTION).mean() > fmr


def test_a_set_of_single_images_will_do():
    x = np.eye(4)
    found = threshold_at(count_pairs(x, np.arange(4)), 0.5, "made")
    assert (found.value, found.accepted, found.strangers) == (RESOLUTION, 0, 6)


def test_it_says_where_it_comes_from():
    found = threshold_at(count_pairs(np.eye(4), np.arange(4)), 0.5, "made")
    assert found.text() == (
        "cosine 0.0000, reached by 0 of the 6 pairs of different identities in made (FMR 5e-1 or less; fewer than 30 "
        "are allowed, so it may be far off)"
    )
    assert not found.reliable
    assert Threshold(0.5, 1e-3, 30_000, 30, "big").reliable
    assert "fewer" not in Threshold(0.5, 1e-3, 30_000, 30, "big").text()
    assert Threshold(0.25).text() == "cosine 0.2500, as given"


@pytest.mark.parametrize(
    ("x", "labels", "fmr", "error", "words"),
    [
        (np.eye(4), np.arange(4), 0.1, DataError, r"6 pairs of different identities, which resolves FMR 1.7e-01"),
        (np.eye(4), np.zeros(4, int), 0.1, DataError, "0 pairs of different identities: FMR 1e-1 cannot be set"),
        (np.ones((4, 2)), np.arange(4), 0.5, DataError, "6 of the 6 pairs .* have cosine 1: no threshold"),
        (np.eye(4), np.arange(4), 0.0, ConfigError, r"FMR must lie in \(0, 1\); got 0"),
        (np.eye(4), np.arange(4), 1.0, ConfigError, r"FMR must lie in \(0, 1\)"),
    ],
)
def test_what_cannot_be_resolved_is_refused(x, labels, fmr, error, words):
    with pytest.raises(error, match=words):
        threshold_at(count_pairs(x, labels), fmr, "made")
