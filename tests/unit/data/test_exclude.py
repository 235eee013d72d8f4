import pytest

from unpg.audit import read_known
from unpg.data.exclude import read_identity_list
from unpg.data.pairs import read_lines
from unpg.errors import DataError


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_has_a_name_per_line(tmp_path):
    path = written(tmp_path, "l.txt", "\ufeff# who\n\nAda Lovelace \n  # more\nb\tc\nAda Lovelace\nÅse\n")
    assert read_identity_list(path) == ["Ada Lovelace", "b\tc", "Åse"]


def test_unicode_line_separators_are_letters_of_a_name(tmp_path):
    path = written(tmp_path, "l.txt", "A\u2028da\nB\x85ob\r\nCy\x1c")
    assert read_lines(path) == ["A\u2028da", "B\x85ob", "Cy\x1c"]
    assert read_identity_list(path) == ["A\u2028da", "B\x85ob", "Cy"]
    table = written(tmp_path, "k.tsv", "one\tother\tgroup\nA\u2028da\tB\x85ob\tname\n")
    assert [(known.identity_a, known.identity_b) for known in read_known(table)] == [("A\u2028da", "B\x85ob")]


def test_a_table_gives_its_first_column_or_the_named_one(tmp_path):
    path = written(tmp_path, "t.tsv", "# note\ncfp_id\tlfw_name\tx\n001\tAda\t\n\n002\tBob\ty\n")
    assert read_identity_list(path) == ["001", "002"]
    assert read_identity_list(f"{path}#lfw_name") == ["Ada", "Bob"]


def test_errors_name_file_line_and_column(tmp_path):
    path = written(tmp_path, "t.tsv", "cfp_id\tlfw_name\n001\tAda\n002\n")
    with pytest.raises(DataError, match=r"t.tsv, line 3: no value in column 'lfw_name'"):
        read_identity_list(f"{path}#lfw_name")
    with pytest.raises(DataError, match=r"no column is called 'lfw_nam'. Did you mean 'lfw_name'"):
        read_identity_list(f"{path}#lfw_nam")
    with pytest.raises(DataError, match=r"gone.txt cannot be read"):
        read_identity_list(tmp_path / "gone.txt")


@pytest.mark.parametrize(("name", "text"), [("l.txt", "# nobody\n\n"), ("t.tsv", ""), ("t.tsv", "id\n")])
def test_a_list_that_names_nobody_is_an_error(tmp_path, name, text):
    with pytest.raises(DataError, match="names nobody"):
        read_identity_list(written(tmp_path, name, text))


def test_bytes_that_are_no_text_are_an_error(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(DataError, match=r"l.txt cannot be read"):
        read_identity_list(tmp_path / "l.txt")
