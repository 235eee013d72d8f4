import json
import time

import pytest

from unpg.data.names_file import names_for, parse_names, read_folder_names
from unpg.errors import DataError


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'["' + b"x", b"[" + b"9" * 5000 + b"]", b'["\xff"]', b"[[[[[]]]]]", b""]
)
def test_what_is_no_list_is_named(tmp_path, data):
    with pytest.raises(DataError, match=r"^the names"):
        parse_names(data, "the names")
    (tmp_path / "n.json").write_bytes(data)
    with pytest.raises(DataError, match=r"n\.json"):
        read_folder_names(tmp_path / "n.json")


def test_the_last_of_many_names_given_twice_is_found_at_once():
    names = [str(i) for i in range(200_000)]
    begin = time.process_time()
    with pytest.raises(DataError, match="the name '199999' is given twice"):
        parse_names(json.dumps([*names, "199999"]).encode(), "n")
    assert time.process_time() - begin < 30  # each with each would be 20,000,000,000 comparisons


def test_a_label_of_thousands_of_digits_has_no_name():
    assert names_for(["1", "0"], ["a", "b"], "n") == ["b", "a"]
    with pytest.raises(DataError, match=r"n names the labels 0 to 1, but the set has the label '9{90,99}"):
        names_for(["9" * 5000], ["a", "b"], "n")
