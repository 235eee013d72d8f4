import copy

import numpy as np
import pytest
import torch

from unpg.data import ArraySet
from unpg.embed import Model, embed, embedding_key, weights_digest
from unpg.transforms import Preprocessing


def make_model(**changes):
    torch.manual_seed(0)
    arguments = {"dim": 4, "input_size": (16, 16), "widths": (2, 2, 2, 2), **changes}
    return Model.create("small_iresnet", **arguments)


def make_images(**changes):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    return ArraySet(**{"images": pixels, "labels": np.array([0, 1, 1]), "identities": ["a", "b"], **changes})


def test_equal_weights_have_equal_digests():
    a, b = make_model().backbone, make_model().backbone.to(memory_format=torch.channels_last)
    assert weights_digest(a) == weights_digest(b) == weights_digest(copy.deepcopy(a).eval())
    assert len(weights_digest(a)) == 64


@pytest.mark.parametrize("name", ["fc.weight", "layer1.0.bn1.running_var", "prelu.weight"])
def test_one_bit_makes_another_digest(name):
    net = make_model().backbone
    before = weights_digest(net)
    net.state_dict()[name].view(torch.int32).flatten()[0] ^= 1
    assert weights_digest(net) != before


def test_values_that_move_between_tensors_make_another_digest():
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    a.weight.data, a.bias.data = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([5.0, 6])
    b.weight.data, b.bias.data = torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([5.0, 6])
    assert weights_digest(a) != weights_digest(b)


def test_the_key_says_whether_embeddings_are_the_same():
    key = embedding_key(make_model(), make_images())
    assert key == embedding_key(make_model(info={"note": 1}), make_images())
    model, images = make_model(), make_images()
    embed(model, images)
    assert key == embedding_key(model, images), "embedding must not change the key"
    other = make_images().images.copy()
    other[2, 3, 4, 0] ^= 1
    changed = [
        embedding_key(make_model(), make_images(images=other)),
        embedding_key(make_model(), make_images(labels=np.array([0, 0, 1]))),
        embedding_key(make_model(preprocessing=Preprocessing(size=(16, 16), std=128.0)), make_images()),
        embedding_key(make_model(dim=5), make_images()),
        embedding_key(make_model(last_norm_weight="frozen"), make_images()),
        embedding_key(make_model(), make_images(), flip="sum"),
        embedding_key(make_model(), make_images(), precision="bf16"),
        embedding_key(make_model(), make_images(), indices=[0, 1, 2]),
        embedding_key(make_model(), make_images(), indices=[0, 2, 1]),
    ]
    assert len({key, *changed}) == 1 + len(changed)
