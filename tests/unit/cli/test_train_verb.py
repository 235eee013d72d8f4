"""Recipes from strangers: refused by name before anything large is made of them."""

import json
import time

import pytest

from unpg.cli.train_verb import parse
from unpg.errors import ConfigError

SOUND = "data: {kind: folder, roots: faces}\n"
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxyz", strict=True)
)
# Each level is short; they are nested by aliases only.
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(100))
HOSTILE = {
    "laughs": (LAUGHS, "its aliases stand for more than 100,000 values"),
    "chain": (CHAIN, "nested too deeply, 103 levels"),
    "deep": ("data: " + "[" * 100_000, "nested too deeply"),
    "deep mappings": ("data: " + '{"a": ' * 100_000, "nested too deeply"),
    "itself": ("data: &x\n  kind: *x\n", "line 1: an alias stands for a value that holds it"),
    "tag": ("data: !!python/object/apply:os.system ['touch {folder}/run']\n", "could not determine a constructor"),
    "name": ("data: !!python/name:os.system\n", "could not determine a constructor"),
    "list": ("- data\n", "must hold settings as `name: value`, got list"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_recipe_is_refused_by_name(tmp_path, name):
    text, message = HOSTILE[name]
    file = tmp_path / "recipe.yaml"
    file.write_text(text.replace("{folder}", str(tmp_path)))
    begin = time.process_time()
    with pytest.raises(ConfigError, match=message) as error:
        parse(["--config", str(file), "--out", str(tmp_path / "out")])
    assert str(error.value).startswith(str(file))
    assert time.process_time() - begin < 20  # 2**26 values, or as many levels, are another matter
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["laughs", "deep", "tag"])
def test_so_is_a_file_that_a_recipe_names_in_place_of_a_group(tmp_path, name):
    text, message = HOSTILE[name]
    other, file = tmp_path / "other.yaml", tmp_path / "recipe.yaml"
    other.write_text(text.replace("{folder}", str(tmp_path)))
    file.write_text(SOUND + f"optim: {json.dumps(str(other))}\n")
    with pytest.raises(ConfigError) as error:
        parse(["--config", str(file), "--out", str(tmp_path / "out")])
    said = str(error.value)
    assert "other.yaml" in said
    assert message in said
    assert not (tmp_path / "run").exists()


def test_a_group_of_settings_may_be_a_file_of_its_own(tmp_path):
    group, file, named = tmp_path / "optim.yaml", tmp_path / "recipe.yaml", tmp_path / "named.yaml"
    group.write_text("{lr: 0.02, kind: adamw}")
    file.write_text(SOUND)
    named.write_text(SOUND + f"optim: {json.dumps(str(group))}\n")
    for arguments in (["--config", str(file), "--optim", str(group)], ["--config", str(named)]):
        config = parse([*arguments, "--optim.weight_decay", "0.25"])[0]
        assert (config.optim.lr, config.optim.kind, config.optim.weight_decay) == (0.02, "adamw", 0.25)


def test_so_may_a_group_whose_settings_depend_on_a_kind(tmp_path):
    file, loss, unpg = (tmp_path / f"{name}.yaml" for name in ("recipe", "loss", "unpg"))
    file.write_text(SOUND + "loss: {kind: arcface, s: 32, m: 0.4}\nunpg: {start_epoch: 2}\n")
    loss.write_text("kind: cosface\ns: 1e1\n")
    unpg.write_text("r: .inf\nmemory: {size: 64}\n")
    for arguments in (
        ["--loss", str(loss), "--unpg", str(unpg)],
        [f"--loss={loss}", f"--unpg={unpg}"],
        ["--loss", "{kind: cosface, s: 1e1}", "--unpg={r: .inf, memory: {size: 64}}"],
    ):
        config = parse(["--config", str(file), *arguments, "--loss.m", "0.1"])[0]
        # Another kind has other settings, so the recipe's are gone; what unpg does not name stays.
        assert config.loss == {"kind": "cosface", "s": 10.0, "m": 0.1}
        assert (config.unpg.r, config.unpg.start_epoch, config.unpg.memory.size) == (float("inf"), 2, 64)
    assert parse(["--config", str(file), "--unpg", "null"])[0].unpg is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "arcface"], r"--loss 'arcface' is no settings: give a YAML file \(--loss file.yaml\)"),
        (["--unpg=true"], r"--unpg 'true' is no settings: .*--unpg\.weight balanced"),
        (["--backbone"], "--backbone is the last word"),
        (["--data", "gone.yaml"], "gone.yaml does not exist"),
        (["--loss", "{kind: [}"], "--loss '{kind: .*cannot be read as YAML"),
    ],
)
def test_a_group_that_is_no_settings_is_refused_with_the_way_out(tmp_path, arguments, message):
    file = tmp_path / "recipe.yaml"
    file.write_text(SOUND)
    with pytest.raises(ConfigError, match=message):
        parse(["--config", str(file), *arguments])


def test_a_recipe_of_megabytes_is_not_read(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(SOUND + "#" * (1 << 20))
    with pytest.raises(ConfigError, match=r"recipe\.yaml has 1,048,611 bytes; settings have 1,048,576 at most"):
        parse(["--config", str(file)])


def test_sound_recipes_are_merged_in_order_and_overridden(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(SOUND + "epochs: 3\noptim: {lr: 0.5}\n")
    second.write_text("epochs: 4\n")
    config, out, resume, _ = parse(["--config", str(first), "--config", str(second), "--optim.momentum", "5e-1"])
    assert (config.epochs, config.optim.lr, config.optim.momentum) == (4, 0.5, 0.5)
    assert (out.name, resume) == ("b", False)
