from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from unpg.backbones import create_backbone
from unpg.data.decode import decode
from unpg.embed import embed
from unpg.errors import ConfigError, DataError
from unpg.export import IMPORTERS, import_weights, load_model, save_model
from unpg.transforms import Preprocessing


def state_of(kind, **settings):
    """A state dict of noise: two tensors of one shape do not have the same values."""
    torch.manual_seed(0)
    net = create_backbone(kind, **settings)
    return {k: torch.rand_like(v) + 0.5 if v.is_floating_point() else v for k, v in net.state_dict().items()}


def equal(model, state):
    own = model.backbone.state_dict()
    return list(own) == list(state) and all(torch.equal(own[k], v) for k, v in state.items())


def test_every_preset_is_documented():
    assert set(IMPORTERS) == {"insightface-iresnet", "insightface-mbf", "mobilefacenet-xiaoccer", "unpg-authors"}
    assert all(IMPORTERS[name].__doc__ for name in IMPORTERS)


@pytest.fixture(scope="module")
def iresnet18(tmp_path_factory):
    state = state_of("iresnet18", dim=32)
    path = tmp_path_factory.mktemp("iresnet") / "backbone.pth"
    torch.save(state, path)
    return path, state


def test_insightface_iresnet(iresnet18):
    path, state = iresnet18
    model = import_weights(path, preset="insightface-iresnet")
    assert equal(model, state)
    assert (model.kind, model.backbone.dim, model.backbone.input_size) == ("iresnet18", 32, (112, 112))
    assert model.preprocessing == Preprocessing(size=(112, 112), channels="rgb", mean=127.5, std=127.5)
    assert not model.backbone.features.weight.requires_grad
    assert not model.backbone.training
    assert model.info["imported_from"] == "backbone.pth"
    assert model.info["preset"] == "insightface-iresnet"


def test_unpg_authors(tmp_path, iresnet18):
    _, state = iresnet18
    torch.save({"epoch": 19, "backbone": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "best.pt")
    model = import_weights(tmp_path / "best.pt", preset="unpg-authors")
    assert equal(model, state)
    assert model.backbone.features.weight.requires_grad
    assert model.info["left_out"] == ["epoch"]
    pixels = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    # As the authors: to 0..1, then ImageNet's mean and standard deviation.
    theirs = (pixels / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(model.preprocessing(pixels), theirs.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "blocks"),
    [
        ("iresnet18", (2, 2, 2, 2)),
        ("iresnet34", (3, 4, 6, 3)),
        ("iresnet50", (3, 4, 14, 3)),
        ("iresnet100", (3, 13, 30, 3)),
        ("iresnet200", (6, 26, 60, 6)),
    ],
)
def test_the_depth_is_read_off_the_names(kind, blocks):
    names = [f"layer{s}.{b}.conv1.weight" for s, n in enumerate(blocks, 1) for b in range(n)]
    state = {**dict.fromkeys(names, torch.zeros(1)), "fc.weight": torch.zeros(64, 25088)}
    foreign = IMPORTERS["unpg-authors"](state)
    assert (foreign.kind, foreign.dim) == (kind, 64)


def mbf_names(blocks):
    """insightface's names in the order of its modules, written from a look at its files."""
    norm = [f"1.{p}" for p in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    conv = ["0.weight", *norm, "2.weight"]
    linear = ["0.weight", *norm]

    def bottleneck(at):
        triple = product(("0", "1", "2"), conv)
        return [f"{at}.layers.{i}.layers.{c}" for i, c in triple if i != "2" or c in linear]

    names = [f"layers.0.layers.{c}" for c in conv]
    if blocks[0] == 1:
        names += [f"layers.1.layers.{c}" for c in conv]
    else:
        names += [n for b in range(blocks[0]) for n in bottleneck(f"layers.1.layers.{b}")]
    for at, count in zip((2, 4, 6), blocks[1:], strict=True):
        names += bottleneck(f"layers.{at}")
        names += [n for b in range(count) for n in bottleneck(f"layers.{at + 1}.layers.{b}")]
    names += [f"conv_sep.layers.{c}" for c in conv]
    names += [f"features.layers.0.layers.{c}" for c in linear]
    return [*names, "features.layers.2.weight", *[f"features.layers.3.{p[2:]}" for p in norm]]


@pytest.mark.parametrize(("scale", "blocks"), [(2, (1, 4, 6, 2)), (4, (2, 8, 12, 4)), (1, (1, 1, 3, 2))])
def test_insightface_mbf(tmp_path, scale, blocks):
    state = state_of("mobilefacenet", dim=48, scale=scale, blocks=blocks)
    theirs = dict(zip(mbf_names(blocks), state.values(), strict=True))  # both in the order of the layers
    theirs["features.layers.2.weight"] = theirs["features.layers.2.weight"].flatten(1)
    torch.save(theirs, tmp_path / "mbf.pth")
    model = import_weights(tmp_path / "mbf.pth", preset="insightface-mbf")
    assert equal(model, state)
    assert model.settings["scale"] == scale
    assert tuple(model.settings["blocks"]) == blocks
    assert model.preprocessing == Preprocessing(size=(112, 112), mean=127.5, std=127.5)
    save_model(tmp_path / "m", model)
    assert equal(load_model(tmp_path / "m"), state)


def test_mobilefacenet_xiaoccer(tmp_path):
    state = state_of("mobilefacenet", dim=128, input_size=(112, 96))
    torch.save({"epoch": 68, "net_state_dict": state}, tmp_path / "068.ckpt")
    model = import_weights(tmp_path / "068.ckpt", preset="mobilefacenet-xiaoccer")
    assert equal(model, state)
    pixels = torch.randint(0, 256, (1, 112, 112, 3), dtype=torch.uint8)
    theirs = (pixels[:, :, 8:104].float() - 127.5) / 128
    torch.testing.assert_close(model.preprocessing(pixels), theirs.permute(0, 3, 1, 2))


def test_without_a_preset_by_hand(tmp_path):
    settings = {"widths": (4, 4, 8, 8), "blocks": (1, 1, 1, 1)}
    state = state_of("small_iresnet", dim=12, input_size=(32, 32), **settings)
    torch.save(state, tmp_path / "w")
    preprocessing = Preprocessing(size=(32, 32), channels="bgr")
    model = import_weights(tmp_path / "w", kind="small_iresnet", dim=12, preprocessing=preprocessing, settings=settings)
    assert equal(model, state)
    assert model.preprocessing == preprocessing
    assert model.info["preset"] is None


def test_what_is_given_goes_before_the_preset(iresnet18):
    path, _ = iresnet18
    bgr = Preprocessing(size=(112, 112), channels="bgr")
    model = import_weights(
        path, preset="insightface-iresnet", preprocessing=bgr, settings={"last_norm_weight": "trained"}
    )
    assert model.preprocessing == bgr
    assert model.backbone.features.weight.requires_grad
    with pytest.raises(DataError, match=r"features.weight float32 \(32,\) instead of float32 \(33,\)|fc.weight"):
        import_weights(path, preset="insightface-iresnet", dim=33)


def test_counters_of_batch_norm_may_be_missing(tmp_path, iresnet18):
    _, state = iresnet18
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    model = import_weights(tmp_path / "old.pth", preset="insightface-iresnet")
    assert all(torch.equal(model.backbone.state_dict()[k], v) for k, v in old.items())
    assert model.backbone.bn1.num_batches_tracked == 0


def test_nothing_else_may_be_missing_or_too_much(tmp_path, iresnet18):
    _, state = iresnet18
    torch.save({k: v for k, v in state.items() if k != "bn2.bias"} | {"extra": torch.zeros(1)}, tmp_path / "w")
    with pytest.raises(DataError, match="/w: .*1 missing: bn2.bias; 1 unexpected: extra"):
        import_weights(tmp_path / "w", preset="insightface-iresnet")


@pytest.mark.parametrize("preset", ["insightface-iresnet", "unpg-authors", "insightface-mbf"])
def test_a_file_of_another_network_is_named(tmp_path, preset):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "w")
    with pytest.raises(DataError, match="/w: not the weights of .*conv.weight"):
        import_weights(tmp_path / "w", preset=preset)


@pytest.mark.parametrize("last", [torch.tensor(1.0), torch.zeros(5)])
def test_a_last_layer_that_is_no_matrix_is_named(tmp_path, iresnet18, last):
    torch.save({**iresnet18[1], "fc.weight": last}, tmp_path / "w")
    with pytest.raises(DataError, match="/w: not the weights of an IResNet.*fc.weight"):
        import_weights(tmp_path / "w", preset="unpg-authors")
    mbf = {"layers.0.layers.0.weight": torch.zeros(64, 3, 3, 3), "features.layers.2.weight": last}
    torch.save(mbf, tmp_path / "w")
    with pytest.raises(DataError, match="/w: not the weights of insightface's mbf.*features.layers.2.weight"):
        import_weights(tmp_path / "w", preset="insightface-mbf")


@pytest.mark.parametrize(
    ("name", "value"), [("bn2.bias", torch.nan), ("bn1.running_var", torch.inf), ("fc.bias", 1e300)]
)
def test_weights_that_are_not_finite_are_refused(tmp_path, iresnet18, name, value):
    _, state = iresnet18
    spoiled = state[name].double()
    spoiled[1] = value
    torch.save({**state, name: spoiled}, tmp_path / "w")
    with pytest.raises(DataError, match=f"/w: 1 of the tensors are not finite.*{name}"):
        import_weights(tmp_path / "w", preset="insightface-iresnet")


def test_too_little_or_unknown_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w")
    with pytest.raises(ConfigError, match="needs a preset, or kind and preprocessing.*insightface-iresnet"):
        import_weights(tmp_path / "w", kind="iresnet18")
    with pytest.raises(ConfigError, match="Did you mean 'unpg-authors'"):
        import_weights(tmp_path / "w", preset="unpg-author")


class Files:
    """Images by path; who they are does not matter here."""

    def __init__(self, paths):
        self.paths, self.labels, self.identities = paths, np.zeros(len(paths), np.int64), ["?"]

    def __len__(self):
        return len(self.paths)

    def read(self, i):
        return decode(self.paths[i])

    def name(self, i):
        return str(self.paths[i])

    def digest(self):
        return ""


@pytest.mark.data
def test_the_public_mobilefacenet_tells_people_apart(faces):
    lines = [line.split("\t") for line in (faces / "lfw" / "pairs.txt").read_text().splitlines()[1:]]
    chosen = [f for f in lines if len(f) == 3][::30] + [f for f in lines if len(f) == 4][::30]

    def path(name, number):
        return faces / "lfw" / "images" / name / f"{name}_{int(number):04d}.jpg"

    first = [path(f[0], f[1]) for f in chosen]
    second = [path(f[0], f[2]) if len(f) == 3 else path(f[2], f[3]) for f in chosen]
    model = import_weights(faces / "weights" / "mobilefacenet_xiaoccer_068.ckpt", preset="mobilefacenet-xiaoccer")
    vectors = embed(model, Files(first + second), batch_size=16).vectors
    scores = (vectors[: len(first)] * vectors[len(first) :]).sum(1)
    same = np.array([len(f) == 3 for f in chosen])
    assert len(same) == 200
    assert same.sum() == 100
    assert roc_auc_score(same, scores) > 0.98
