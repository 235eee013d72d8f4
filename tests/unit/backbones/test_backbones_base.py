import pytest
import torch

from unpg.backbones import BACKBONES, create_backbone
from unpg.errors import ConfigError, ShapeError


def test_every_published_backbone_is_registered():
    assert set(BACKBONES) >= {
        "iresnet18",
        "iresnet34",
        "iresnet50",
        "iresnet100",
        "iresnet200",
        "small_iresnet",
        "mobilefacenet",
    }


@pytest.mark.parametrize("kind", ["small_iresnet", "mobilefacenet"])
@pytest.mark.parametrize("size", [(112, 112), (112, 96), (64, 64), (33, 50), (16, 7)])
def test_any_input_size_gives_embeddings_of_the_size_asked_for(kind, size):
    net = create_backbone(kind, dim=24, input_size=size).eval()
    assert (net.dim, net.input_size) == (24, size)
    for batch in (1, 3):
        with torch.inference_mode():
            out = net(torch.randn(batch, 3, *size))
        assert out.shape == (batch, 24)
        assert out.isfinite().all()


@pytest.mark.parametrize("kind", ["small_iresnet", "mobilefacenet"])
def test_a_batch_of_another_size_is_refused_with_both_sizes(kind):
    net = create_backbone(kind, dim=8, input_size=(64, 48))
    with pytest.raises(ShapeError, match=r"\(64, 48\).*\(2, 3, 48, 64\)"):
        net(torch.zeros(2, 3, 48, 64))
    with pytest.raises(ShapeError, match=r"\(2, 1, 64, 48\)"):
        net(torch.zeros(2, 1, 64, 48))
    with pytest.raises(ShapeError, match=r"\(3, 64, 48\)"):
        net(torch.zeros(3, 64, 48))


@pytest.mark.parametrize("kind", ["small_iresnet", "mobilefacenet"])
def test_evaluation_does_not_depend_on_company_order_or_memory_format(kind):
    torch.manual_seed(0)
    net = create_backbone(kind, dim=16, input_size=(32, 32)).eval()
    images = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        together = net(images)
        assert torch.equal(together, net(images))
        alone = torch.cat([net(image[None]) for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.flip(0), net(images.flip(0)), rtol=1e-4, atol=1e-5)
        last = net.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(together, last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["small_iresnet", "mobilefacenet"])
def test_autocast_computes_the_embedding_itself_in_float32(kind):
    torch.manual_seed(0)
    net = create_backbone(kind, dim=16, input_size=(32, 32)).to(memory_format=torch.channels_last)
    images = torch.randn(8, 3, 32, 32).to(memory_format=torch.channels_last)
    seen = []
    original = net.project

    def project(maps):
        seen.append((maps.dtype, torch.is_autocast_enabled("cpu")))
        return original(maps)

    net.project = project
    exact = net(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net.trunk(images).dtype == torch.bfloat16
        rough = net(images)
        assert torch.is_autocast_enabled("cpu")
    assert seen == [(torch.float32, False)] * 2
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(exact, rough).min() > 0.99
    rough.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("kind", ["small_iresnet", "mobilefacenet"])
def test_every_weight_gets_a_gradient(kind):
    torch.manual_seed(0)
    net = create_backbone(kind, dim=16, input_size=(32, 32))
    (net(torch.randn(6, 3, 32, 32)) * torch.randn(6, 16)).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_seed_decides_over_the_weights():
    nets = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        nets.append(create_backbone("small_iresnet", dim=8, input_size=(16, 16)).state_dict())
    assert all(torch.equal(nets[0][k], nets[1][k]) for k in nets[0])
    assert not torch.equal(nets[0]["fc.weight"], nets[2]["fc.weight"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "iresnet51"}, "iresnet51.*Did you mean 'iresnet50'"),
        ({"drop": 0.4}, "no setting 'drop'.*Did you mean 'dropout'"),
        ({"dropout": 1.0}, r"backbone.dropout must lie in \[0, 1\), got 1.0"),
        ({"dropout": float("nan")}, "backbone.dropout"),
        ({"last_norm_weight": "fixed"}, "'trained' or 'frozen', got 'fixed'"),
        ({"dim": 0}, "backbone.dim.*got 0"),
        ({"dim": 12.5}, "backbone.dim.*got 12.5"),
        ({"dim": True}, "backbone.dim.*got True"),
        ({"input_size": 112}, r"backbone.input_size must be two numbers \(height, width\), got 112"),
        ({"input_size": (112,)}, "backbone.input_size must be two"),
        ({"input_size": (112, 0)}, "backbone.input_size.*got 0"),
        ({"input_size": "99"}, "backbone.input_size.*got '9'"),
        ({"widths": (8, 8, 8)}, "backbone.widths must be four"),
        ({"blocks": (1, 1, 1, 0)}, "backbone.blocks.*got 0"),
        ({"kind": "mobilefacenet", "scale": 0}, "backbone.scale.*got 0"),
        ({"kind": "mobilefacenet", "scale": 1.5}, "backbone.scale.*got 1.5"),
        ({"kind": "mobilefacenet", "blocks": (1, 2)}, "backbone.blocks must be four"),
        ({"kind": "mobilefacenet", "blocks": 4}, "backbone.blocks must be four"),
        ({"kind": "iresnet18", "widths": (8, 8, 8, 8)}, "no setting 'widths'"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        create_backbone(**{"kind": "small_iresnet", **settings})
