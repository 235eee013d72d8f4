import pytest

from unpg.errors import DataError, shown
from unpg.json_file import parse_json, read_json_object


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1, column 2"),
        ('{"a": 1}\n,', "line 2, column 1"),
        ("[" * 100_000, "recursion"),
        ("9" * 5000, "4300 digits"),
        (b"\xff", "utf-8"),
        ("", "line 1, column 1"),
    ],
)
def test_whatever_is_wrong_is_named(text, said):
    with pytest.raises(DataError, match=rf"(?s)^a\.json, line 3 is not JSON.*{said}.*Write it again\.$"):
        parse_json(text, "a.json, line 3", "Write it again.")


def test_an_object_of_a_file(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"a": [1, 2.5, null]}')
    assert read_json_object(file) == {"a": [1, 2.5, None]}
    file.write_text("[1]")
    with pytest.raises(DataError, match=r"a\.json must hold a JSON object; got list"):
        read_json_object(file)
    with pytest.raises(FileNotFoundError):
        read_json_object(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        read_json_object(tmp_path)


def test_what_is_shown_is_short():
    laughs: list = ["ha"]
    for _ in range(60):
        laughs = [laughs, laughs]
    assert len(shown(laughs)) <= 200
    assert shown(10**5000) == "a int too long to be shown"
    assert len(shown("x" * 10**6, 80)) <= 80
    assert shown({"a": [1, None]}) == "{'a': [1, None]}"
