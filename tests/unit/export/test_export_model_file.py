import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from unpg.data import ArraySet
from unpg.embed import Model, embed
from unpg.embed.tensor_file import read_tensors, write_tensors
from unpg.errors import ConfigError, DataError
from unpg.export import load_model, save_model
from unpg.transforms import Preprocessing

KIND = {"file_format": "unpg.model", "version": 1}


def make(kind="small_iresnet", **settings):
    torch.manual_seed(0)
    preprocessing = Preprocessing(size=(16, 24), crop=(4, 0, 16, 24), channels="bgr", mean=(1.0, 2.0, 3.0))
    if kind == "small_iresnet":
        settings = {"widths": (4, 4, 8, 8), "last_norm_weight": "frozen", **settings}
    model = Model.create(
        kind, dim=6, input_size=(16, 24), preprocessing=preprocessing, info={"run": "é", "loss": 0.5}, **settings
    )
    model.backbone(torch.randn(8, 3, 16, 24))  # statistics that are not the initial ones
    return model


@pytest.mark.parametrize(
    ("kind", "settings"), [("small_iresnet", {"dropout": 0.2}), ("mobilefacenet", {"blocks": (2, 1, 1, 1)})]
)
def test_a_model_comes_back_bit_for_bit(tmp_path, kind, settings):
    model = make(kind, **settings)
    save_model(tmp_path / "new" / "m.safetensors", model)
    state = torch.random.get_rng_state()
    back = load_model(tmp_path / "new" / "m.safetensors")
    assert torch.equal(state, torch.random.get_rng_state())
    before, after = model.backbone.state_dict(), back.backbone.state_dict()
    assert list(before) == list(after)
    for name in before:
        assert before[name].dtype == after[name].dtype
        assert torch.equal(before[name], after[name])
    assert (back.kind, back.preprocessing, back.info) == (kind, model.preprocessing, model.info)
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in back.settings.items()} == model.settings
    assert (back.backbone.dim, back.backbone.input_size) == (6, (16, 24))
    assert not any(m.training for m in back.backbone.modules())
    assert [p.requires_grad for p in back.backbone.parameters()] == [
        p.requires_grad for p in model.backbone.parameters()
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    images = ArraySet(pixels, np.array([0, 1, 1]), ["a", "b"])
    assert np.array_equal(embed(model, images).vectors, embed(back, images).vectors)


def test_a_loaded_model_can_be_saved_again(tmp_path):
    save_model(tmp_path / "a", make())
    save_model(tmp_path / "b", load_model(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_memory_format_does_not_reach_the_file(tmp_path):
    save_model(tmp_path / "a", make())
    model = make()
    model.backbone.to(memory_format=torch.channels_last)
    save_model(tmp_path / "b", model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_notes_that_json_does_not_know_are_refused(tmp_path):
    model = Model.create("small_iresnet", dim=4, input_size=(16, 16), info={"when": object()})
    with pytest.raises(ConfigError, match="plain JSON"):
        save_model(tmp_path / "a", model)
    assert os.listdir(tmp_path) == []


def test_half_precision_weights_become_the_backbones(tmp_path):
    model = make()
    save_model(tmp_path / "a", model)
    tensors, header = read_tensors(tmp_path / "a", **KIND)
    half = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    write_tensors(tmp_path / "h", half, header, **KIND)
    back = load_model(tmp_path / "h").backbone.state_dict()
    assert all(torch.equal(back[k], v.to(back[k].dtype)) for k, v in half.items())
    assert back["fc.weight"].dtype == torch.float32


def without(tensors, *names):
    return {k: v for k, v in tensors.items() if k not in names}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: without(t, "fc.bias", "prelu.weight"), "2 missing: prelu.weight, fc.bias"),
        (lambda t: without(t, *[k for k in t if "layer1" in k]), r"missing: layer1.0.bn1.weight, .* and \d+ more"),
        (lambda t: {**t, "head.weight": torch.zeros(3)}, "1 unexpected: head.weight"),
        (
            lambda t: {**t, "fc.bias": torch.zeros(7)},
            r"1 of another shape or type: fc.bias float32 \(7,\) instead of float32 \(6,\)",
        ),
        (lambda t: {**t, "fc.bias": torch.zeros(6, 1)}, r"fc.bias float32 \(6, 1\) instead"),
        (lambda t: {**t, "fc.bias": torch.zeros(6).long()}, r"fc.bias int64 \(6,\) instead of float32"),
        (
            lambda t: {**without(t, "fc.bias"), "fc.offset": torch.zeros(6)},
            "1 missing: fc.bias; 1 unexpected: fc.offset",
        ),
        (lambda t: {}, "missing: conv1.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(tmp_path, spoil, message):
    save_model(tmp_path / "a", make())
    tensors, header = read_tensors(tmp_path / "a", **KIND)
    write_tensors(tmp_path / "bad", spoil(tensors), header, **KIND)
    with pytest.raises(DataError, match=f"/bad.*{message}"):
        load_model(tmp_path / "bad")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "small_iresnett"}, "Did you mean 'small_iresnet'"),
        ({"kind": None}, "'kind' must be str in JSON, got None"),
        ({"dim": "6"}, "'dim' must be int in JSON, got '6'"),
        ({"dim": True}, "dim"),
        ({"dim": 7}, r"features.bias.* \(6,\) instead of .* \(7,\)"),
        ({"settings": []}, "'settings' must be dict"),
        ({"settings": {"width": 3}}, "no setting 'width'"),
        ({"settings": {"dim": 6}}, "dim"),
        ({"input_size": [16]}, "input_size must be two"),
        ({"input_size": [16, 16]}, "fc.weight.*instead|preprocessing.size"),
        ({"preprocessing": {}}, "needs the setting 'size'"),
        ({"preprocessing": {"size": [16, 24], "gamma": 1}}, "no setting 'gamma'"),
        ({"preprocessing": {"size": 16}}, "describes no model"),
        ({"preprocessing": {"size": [16, 24], "mean": "127.5"}}, "mean must be one finite number"),
        ({"preprocessing": {"size": [24, 16]}}, "make them equal"),
    ],
)
def test_a_header_that_builds_nothing_is_named(tmp_path, change, message):
    save_model(tmp_path / "a", make())
    tensors, header = read_tensors(tmp_path / "a", **KIND)
    write_tensors(tmp_path / "bad", tensors, {**header, **change}, **KIND)
    with pytest.raises(DataError, match=f"/bad.*({message})"):
        load_model(tmp_path / "bad")


def test_each_field_of_the_header_is_needed(tmp_path):
    save_model(tmp_path / "a", make())
    tensors, header = read_tensors(tmp_path / "a", **KIND)
    assert len(header) == 6
    for name in header:
        write_tensors(tmp_path / "bad", tensors, {k: v for k, v in header.items() if k != name}, **KIND)
        with pytest.raises(DataError, match=f"/bad.*'{name}' must be"):
            load_model(tmp_path / "bad")


def test_other_files_are_not_models(tmp_path):
    save_model(tmp_path / "a", make())
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-1])
    (tmp_path / "text").write_text("hello")
    torch.save({"x": torch.zeros(1)}, tmp_path / "torch.pt")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    save_file({}, tmp_path / "newer", metadata={"unpg": json.dumps({"format": "unpg.model", "version": 2})})
    for name, message in {
        "none": "is not a file",
        "cut": "is not a whole safetensors file",
        "text": "is not a whole safetensors file",
        "torch.pt": "is not a whole safetensors file",
        "foreign": "not one of the format 'unpg.model'",
        "newer": "version 2 .* reads version 1",
    }.items():
        with pytest.raises(DataError, match=f"/{name}.*{message}"):
            load_model(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dim": 1 << 20}, "of another shape or type: fc.weight"),
        ({"dim": 10**9}, "of at most 1,048,576"),
        ({"dim": 10**40}, "of at most 1,048,576"),
        ({"input_size": [1 << 20, 1 << 20]}, r"of another shape or type: fc.weight|cannot be built"),
        ({"settings": {"blocks": [1, 1, 1, 10**8]}}, "of at most 1,000"),
        ({"settings": {"widths": [1 << 20] * 4}}, "of another shape or type|cannot be built"),
        ({"kind": "iresnet200", "settings": {}}, "missing"),
    ],
)
def test_sizes_in_the_header_are_compared_before_memory_is_asked_for(tmp_path, change, said):
    model = Model.create("small_iresnet", dim=4, input_size=(16, 16), blocks=[1] * 4, widths=[1] * 4)
    save_model(tmp_path / "a.safetensors", model)
    tensors, header = read_tensors(tmp_path / "a.safetensors", file_format="unpg.model", version=1)
    write_tensors(tmp_path / "b.safetensors", tensors, {**header, **change}, file_format="unpg.model", version=1)
    made = []
    with TorchDispatchLog(made), pytest.raises(DataError, match=rf"b\.safetensors.*({said})"):
        load_model(tmp_path / "b.safetensors")
    assert max(made, default=0) < 1 << 20  # bytes of the largest tensor that had memory


class TorchDispatchLog(TorchDispatchMode):
    """Notes the bytes of each tensor made on the CPU."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def __torch_dispatch__(self, func, kinds, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.device.type == "cpu":
            self.made.append(out.numel() * out.element_size())
        return out
