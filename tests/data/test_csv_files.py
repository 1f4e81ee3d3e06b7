"""CSV files: read as text whoever wrote them, and written so that no spreadsheet runs a cell."""

import csv
import io
from pathlib import Path

import pytest

from dfl.data import Table, csv_files
from dfl.errors import UserError


def read(file: Path, content: str | bytes, encoding: str | None = None) -> list[dict[str, str]]:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(csv_files.read(file, encoding).to_pylist())


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-18", "@SUM(A1)", "\tx", "\rx", "\nx", "＝x", "'=x", "''-x", "'x", "'", "", "a=b", 'q"=,']
)
def test_no_cell_is_a_formula_and_every_name_comes_back(tmp_path: Path, name: str) -> None:
    written = csv_files.whole(["path", "=column"], [{"path": name, "=column": -1}])
    cells = [cell for row in csv.reader(io.StringIO(written, newline="")) for cell in row]
    assert cells[1] == "'=column"
    assert cells[3] == "-1"  # a number stays one
    assert not cells[2].startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))
    assert read(tmp_path / "t.csv", written) == [{"path": name, "=column": "-1"}]


@pytest.mark.parametrize(
    "content",
    [
        "path,label\nä b.png,007\n",
        "\n\npath,label\r\nä b.png,007\r\n\r\n",
        "path;label\nä b.png;007\n",
        "sep=;\r\npath;label\r\nä b.png;007\r\n",
        "path\tlabel\rä b.png\t007\r",
        " path , label \nä b.png,007\n",
        "path,label\nä b.png,007\n".encode("utf-8-sig"),
        "path\tlabel\nä b.png\t007\n".encode("utf-16"),
    ],
)
def test_text_is_text_however_it_was_saved(tmp_path: Path, content: str | bytes) -> None:
    assert read(tmp_path / "t.csv", content) == [{"path": "ä b.png", "label": "007"}]


def test_ends_of_lines_in_cells_and_names(tmp_path: Path) -> None:
    found = read(tmp_path / "t.csv", 'path,"two\nlines"\na,"x\ny, ""z"""\nNA,\n')
    assert found == [{"path": "a", "two\nlines": 'x\ny, "z"'}, {"path": "NA", "two\nlines": ""}]


def test_encodings_are_said_or_told(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    for encoding, text in (("gbk", "图像/脸.jpg"), ("cp1252", "café.jpg"), ("shift_jis", "画像.jpg")):
        content = f"path,label\na.jpg,0\n{text},1\n".encode(encoding)
        with pytest.raises(UserError, match=r"is not UTF-8: line 3 holds the byte 0x.*save it as UTF-8.*encoding: gbk"):
            read(file, content)
        assert read(file, content, encoding)[1]["path"] == text
        assert Table(str(file), encoding=encoding).load("test")["path"].to_pylist()[1].endswith(text)
    with pytest.raises(UserError, match="no encoding 'gkb'"):
        read(file, "path\n", "gkb")
    with pytest.raises(UserError, match="is not in the encoding ascii"):
        read(file, "path\ncafé\n", "ascii")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_wide_letters_without_a_mark_are_said_to_be_no_utf8(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes("path,label\na,1\n".encode(encoding))
    with pytest.raises(UserError, match="is not UTF-8: its first line holds zero bytes.*save it as UTF-8"):
        csv_files.read(tmp_path / "t.csv")
    assert csv_files.read(tmp_path / "t.csv", encoding).to_pylist() == [{"path": "a", "label": "1"}]


def test_odd_files_are_one_line(tmp_path: Path) -> None:
    for content in ("", "\n\n", " \n"):
        with pytest.raises(UserError, match="is empty: a table begins with a line of names"):
            read(tmp_path / "t.csv", content)
    assert read(tmp_path / "t.csv", "path,label\n") == []
    with pytest.raises(UserError, match="Expected 2 columns, got 3"):
        read(tmp_path / "t.csv", "path,label\na,1,2\n")
