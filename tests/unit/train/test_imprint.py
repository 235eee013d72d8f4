"""Class weights that begin at the mean of their people's embeddings."""

import numpy as np
import pytest
import torch
from rich.console import Console

from unpg.embed import embed
from unpg.errors import ConfigError
from unpg.export import load_model
from unpg.train import imprint as imprinting
from unpg.train import train
from unpg.train.begin import begin, heads_of
from unpg.train.setup import prepare, resolve


@pytest.fixture(scope="module")
def learned(tmp_path_factory, tiny):
    """A run that tells its eight people apart."""
    run = tmp_path_factory.mktemp("learned") / "run"
    train(tiny(), run)
    return run


@pytest.fixture
def begun(tiny, learned):
    """From changed settings to a run that has begun with the network of ``learned``, and what was said."""

    def make(init=None, **changes):
        init = {"model": str(learned / "model.safetensors")} if init is None else init
        setup = prepare(resolve(tiny(init=init | {"class_weights": "imprinted"}, **changes)))
        drawn = {name: head.weight.detach().clone() for name, head in heads_of(setup.loss).items()}
        return setup, drawn, begin(setup)

    return make


def means(learned, images, places=None):
    """(c, d) by a loop over single images: the mean of their unit embeddings at length 1."""
    model = load_model(learned / "model.safetensors")
    found = []
    for c in range(len(images.identities)):
        own = np.flatnonzero(images.labels == c)
        own = own if places is None else own[places]
        vectors = [embed(model, images, indices=[i]).vectors[0].astype(np.float64) for i in own]
        mean = np.mean(vectors, axis=0)
        found.append(mean / np.linalg.norm(mean))
    return np.array(found)


@pytest.mark.parametrize("changes", [{}, {"unpg": {}}, {"loss": {"kind": "subcenter-arcface", "s": 16}}])
def test_each_weight_is_the_unit_mean_of_its_persons_unit_embeddings(begun, learned, changes):
    setup, _, said = begun(**changes)
    expected = means(learned, setup.images)
    (head,) = heads_of(setup.loss).values()
    units = head.weight.detach().reshape(8, head.centers, -1).double().numpy()
    for center in range(head.centers):
        np.testing.assert_allclose(units[:, center], expected, atol=2e-6)
    assert "class weights are new. 8 of the new ones begin at the mean of their embeddings." in said


def test_many_images_are_looked_at_from_first_to_last(begun, learned, monkeypatch):
    monkeypatch.setattr(imprinting, "IMAGES", 3)
    monkeypatch.setattr(imprinting, "_AT_ONCE", 3)  # three pieces of the eight classes
    setup, _, _ = begun()
    units = setup.loss.pairs.head.weight.detach().double().numpy()
    np.testing.assert_allclose(units, means(learned, setup.images, [0, 4, 7]), atol=2e-6)


def test_the_first_batch_is_known_already(begun, tiny, learned):
    """What it is for: a drawn head tells nobody, an imprinted one nearly everybody."""

    def right(setup):
        units = torch.from_numpy(embed(setup.model, setup.images).vectors)
        found = (units @ torch.nn.functional.normalize(setup.loss.pairs.head.weight.detach()).T).argmax(dim=1)
        return float((found.numpy() == setup.images.labels).mean())

    drawn = prepare(resolve(tiny(init={"model": str(learned / "model.safetensors")})))
    begin(drawn)
    assert right(drawn) < 0.4
    assert right(begun()[0]) > 0.9


def test_people_of_a_checkpoint_keep_what_they_have_learned(begun, learned, tmp_path, patterns):
    for person in range(1, 8):
        (tmp_path / f"id{person}").symlink_to(patterns / f"id{person}")
    (tmp_path / "new").symlink_to(patterns / "id0")
    setup, _, said = begun(
        {"checkpoint": str(learned)}, data={"kind": "folder", "roots": str(tmp_path)}, sampler={"batch_size": 16}
    )
    assert "7 identities known by name keep their class weights, 1 are new" in said
    assert said.endswith(" 1 of the new ones begin at the mean of their embeddings.")
    trained = torch.nn.functional.normalize(setup.loss.pairs.head.weight.detach()).double().numpy()
    distance = np.abs(trained - means(learned, setup.images)).max(axis=1)
    assert distance[7] < 2e-6
    assert (distance[:7] > 1e-3).all()


def test_a_person_without_a_readable_image_keeps_a_drawn_weight(begun, tmp_path, patterns):
    for person in range(3):
        (tmp_path / f"id{person}").symlink_to(patterns / f"id{person}")
    (tmp_path / "broken").mkdir()
    for i in range(8):
        (tmp_path / "broken" / f"{i}.png").write_bytes(b"no image")
    setup, drawn, said = begun(data={"kind": "folder", "roots": str(tmp_path)})
    assert said.endswith(" 3 of the new ones begin at the mean of their embeddings.")
    same = (setup.loss.pairs.head.weight.detach() == drawn["loss/pairs.head.weight"]).all(dim=1)
    assert same.tolist() == [name == "broken" for name in setup.images.identities]


def test_embeddings_that_cancel_out_leave_the_drawn_weight(begun, monkeypatch):
    real = imprinting.embed

    def canceled(*args, **options):
        found = real(*args, **options)
        first = found.labels == 0
        found.vectors[first] = np.resize([1, -1], (int(first.sum()), 1)) * found.vectors[first][:1]
        return found

    monkeypatch.setattr(imprinting, "embed", canceled)
    setup, drawn, said = begun()
    assert " 7 of the new ones" in said
    assert torch.equal(setup.loss.pairs.head.weight[0], drawn["loss/pairs.head.weight"][0])


def test_what_cannot_be_is_refused(tiny, begun):
    with pytest.raises(ConfigError, match=r"imprinted .* give init.model or init.checkpoint"):
        tiny(init={"class_weights": "imprinted"})
    pairs = {"sampler": {"kind": "pk", "batch_size": 16, "images_per_identity": 4}}
    with pytest.raises(ConfigError, match=r"loss.kind triplet has no class weights: leave it out"):
        begun(loss={"kind": "triplet"}, **pairs)


def test_a_run_that_begins_so_trains_resumes_and_says_so(tiny, learned, tmp_path, capsys):
    config = tiny(init={"checkpoint": str(learned), "class_weights": "imprinted"}, epochs=1)
    console = Console(width=300)
    train(config, tmp_path / "run", console=console)
    train(config, tmp_path / "run", resume=True, console=console)
    said = capsys.readouterr().out
    assert said.count("Embedding up to 20 images of each identity") == 1
