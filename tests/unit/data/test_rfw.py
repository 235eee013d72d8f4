from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unpg.data.bins import write_bin
from unpg.data.rfw import RFW_GROUPS, rfw_bins, rfw_pairs
from unpg.errors import ConfigError, DataError, UnpgError

PAIRS = "m.01\t1\t2\nm.01\t1\tm.0x\t3\n"


@pytest.fixture
def folder(tmp_path):
    for person, i in (("m.01", 1), ("m.01", 2), ("m.0x", 3)):
        file = tmp_path / "data" / "Asian" / person / f"{person}_{i:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(file)
    (tmp_path / "txts" / "Asian").mkdir(parents=True)
    (tmp_path / "txts" / "Asian" / "Asian_pairs.txt").write_text(PAIRS)
    return tmp_path


def test_pairs_of_a_group(folder):
    got = rfw_pairs(folder, "Asian")
    assert got.name == "RFW Asian"
    assert got.files[2] == str(folder / "data/Asian/m.0x/m.0x_0003.jpg")
    assert got.pairs.tolist() == [[0, 1], [0, 2]]
    assert got.same.tolist() == [True, False]
    assert got.identities == ["m.01", "m.01", "m.0x"]
    (folder / "txts/Asian/Asian_pairs.txt").write_text(PAIRS * 15)
    assert np.bincount(rfw_pairs(folder, "Asian").folds).tolist() == [3] * 10
    (folder / "data").rename(folder / "aligned")
    assert len(rfw_pairs(folder, "Asian", images=folder / "aligned")) == 30


@pytest.mark.parametrize(
    "line",
    [
        "m.01 1",
        "m.01 1 2 3 4",
        "m.01 1 x",
        "m.01 x m.0x 1",
        "m.01 1 m.01 2",
        ".. 1 2",
        "a/b 1 2",
        "m.01 1 999999999999",
    ],
)
def test_a_broken_line_is_named(folder, line):
    (folder / "txts/Asian/Asian_pairs.txt").write_text(f"{PAIRS}\n{line}\n")
    with pytest.raises(DataError, match=r"Asian_pairs.txt, line 4"):
        rfw_pairs(folder, "Asian")


def test_groups_are_four(folder):
    with pytest.raises(ConfigError, match="no group 'asian'. Did you mean 'Asian'"):
        rfw_pairs(folder, "asian")
    with pytest.raises(DataError, match=r"Indian_pairs.txt cannot be read"):
        rfw_pairs(folder, "Indian")
    image = (folder / "data/Asian/m.01/m.01_0001.jpg").read_bytes()
    for group in RFW_GROUPS[:3]:
        write_bin(folder / f"{group}_test.bin", [image, image], [True])
    with pytest.raises(DataError, match=r"lacks Indian_test.bin\. RFW has one"):
        rfw_bins(folder)
    write_bin(folder / "Indian_test.bin", [image, image] * 2, [True, False])
    found = rfw_bins(folder)
    assert {group: len(bins.pairs) for group, bins in found.items()} == dict(zip(RFW_GROUPS, [1, 1, 1, 2], strict=True))


@settings(deadline=None)
@given(st.text(alphabet="m.01\t\n x/", max_size=40))
def test_any_list_is_pairs_or_our_error(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "fuzz-rfw"
    (folder / "txts/Asian").mkdir(parents=True, exist_ok=True)
    (folder / "txts/Asian/Asian_pairs.txt").write_text(text)
    with suppress(UnpgError):
        rfw_pairs(folder, "Asian")
