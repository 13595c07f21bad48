"""Tables as they are really found: delimiters, quotes, headers or none, ragged rows, cells without an end."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import DocumentError, EdgeError, TooLargeError
from edge_runtime.knowledge.csv_tables import LINE_CHARS, detect, header, read_csv
from edge_runtime.knowledge.documents import ParsedDocument
from tests.edge_runtime.knowledge.test_parse import attempted, quick, tiles


def read(text: str, name: str = "a.csv", *, text_chars: int = 10**7) -> ParsedDocument:
    document = read_csv(name, text, text_chars=text_chars)
    assert tiles(document)
    assert document.format == "csv"
    return document


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_each_row_becomes_a_line_with_its_columns_names(mark: str) -> None:
    text = f"station{mark}pressure{mark}note\nNorth{mark}3.1{mark}ok\nSouth{mark}2.9{mark}\n"
    document = read(text)
    assert document.text == "station: North; pressure: 3.1; note: ok\nstation: South; pressure: 2.9\n"
    assert [(one.heading, one.kind) for one in document.sections] == [(("station, pressure, note",), "rows")]


def test_decimal_commas_do_not_part_columns() -> None:
    assert detect("ort;druck\nNord;1,5\nWest;2,7\n").delimiter == ";"
    assert read("ort;druck\nNord;1,5\nWest;2,7\n").text == "ort: Nord; druck: 1,5\nort: West; druck: 2,7\n"


def test_quoted_line_ends_quotes_and_delimiters_stay_in_their_cell() -> None:
    text = 'id,words\n1,"one\ntwo, ""three"""\n2,four\n'
    assert read(text).text == 'id: 1; words: one two, "three"\nid: 2; words: four\n'


def test_quotes_that_a_backslash_escapes_are_read() -> None:
    assert read('id,words\n1,"say \\"stop\\", then go"\n').text == 'id: 1; words: say "stop", then go\n'


def test_a_path_that_ends_in_a_backslash_does_not_escape_the_quote_after_it() -> None:
    text = '"path","size"\n"C:\\logs\\","3"\n"D:\\old\\","4"\n'
    assert read(text).text == "path: C:\\logs\\; size: 3\npath: D:\\old\\; size: 4\n"


def test_a_table_without_a_header_names_its_columns_by_number() -> None:
    assert read("North,3.1\nSouth,2.9\n").text == "column 1: North; column 2: 3.1\ncolumn 1: South; column 2: 2.9\n"


@pytest.mark.parametrize(
    ("row", "names"),
    [
        (["country", "1990", "1991"], ["country", "1990", "1991"]),
        (["", "a", "a"], ["column 1", "a", "a (2)"]),
        (["#id", "b"], ["id", "b"]),
        (["x", "3.5"], None),
        (["2024-01-02", "x"], None),
        (["1990", "1991"], None),
    ],
)
def test_a_header_is_told_from_a_row(row: list[str], names: list[str] | None) -> None:
    assert header(row) == names


def test_ragged_rows_are_read_and_said() -> None:
    document = read("a,b\n1,2\n3\n4,5,6\n\n7,8\n")
    assert document.text == "a: 1; b: 2\na: 3\na: 4; b: 5; column 3: 6\na: 7; b: 8\n"
    assert "1 of 4 rows" in document.warnings[0]


def test_a_title_above_the_table_and_the_line_for_excel_are_no_rows() -> None:
    assert read("sep=;\nid;a;b\n1;2;3\n").text == "id: 1; a: 2; b: 3\n"
    document = read("Pumps of 2024,,\n,,\nid,a,b\n1,2,3\n4,5,6\n")
    assert document.text == "Pumps of 2024\nid: 1; a: 2; b: 3\nid: 4; a: 5; b: 6\n"
    assert [one.heading for one in document.sections] == [(), ("id, a, b",)]


def test_one_column_and_a_header_alone_are_read() -> None:
    assert read("name\nBolt, M8\nNut, M8\n").text == "name: Bolt, M8\nname: Nut, M8\n"
    assert read("a,b\n").text == "columns: a, b\n"


def test_a_quote_that_nobody_closes_does_not_swallow_the_rows() -> None:
    document = read('id,size\n1,"5 inch\n' + "".join(f"{number},6\n" for number in range(2, 2000)))
    assert "id: 1999; size: 6" in document.text
    assert "never closed" in document.warnings[0]


def test_a_wide_row_is_several_lines_that_each_say_whose_they_are() -> None:
    columns = [f"reading {number}" for number in range(200)]
    document = read(f"pump,{','.join(columns)}\nP1,{','.join(['3.25'] * 200)}\n")
    lines = document.text.splitlines()
    assert len(lines) > 5
    assert all(line.startswith("pump: P1; reading ") and len(line) <= LINE_CHARS for line in lines)


def test_a_row_put_in_moves_no_other_section() -> None:
    rows = [f"P{number},{number * 7 % 31}.5,ok\n" for number in range(2000)]
    before, after = (read("".join(["pump,bar,note\n", *some])) for some in (rows, ["P-new,1.5,ok\n", *rows]))
    old, new = ({one.text[part.start : part.end] for part in one.sections} for one in (before, after))
    assert len(old & new) >= len(old) - 3


def test_an_endless_cell_and_too_many_columns_are_refused() -> None:
    with pytest.raises(DocumentError, match="cell of more than"):
        read("a,b\n1," + "x" * 2_000_000)
    with pytest.raises(DocumentError, match="100000 columns"):
        read(",".join(f"c{number}" for number in range(100_000)) + "\n")
    with pytest.raises(TooLargeError, match="text_chars"):
        quick("a.csv", b"a,b\n1," + b"x" * 50 * 2**20)


def test_column_names_count_against_the_limit() -> None:
    with pytest.raises(TooLargeError, match="text_chars"):
        read("a long name of a column,b\n" + "1,2\n" * 1000, text_chars=9000)


def test_empty_tables_are_said_to_be_empty() -> None:
    with pytest.raises(DocumentError, match="is empty"):
        read(",,,\n,,\n")


_CELLS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 6).flatmap(lambda width: st.lists(st.lists(_CELLS, min_size=width, max_size=width), min_size=3)))
def test_every_cell_of_a_well_made_table_is_found_in_its_row(rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    text = out.getvalue()
    document = read(text)
    for row in rows[1:]:
        assert any(all(cell in line for cell in row) for line in document.text.split("\n"))


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from('ab1.,;\t|"\\\n '), max_size=300))
def test_any_text_gives_lines_or_a_clear_error(text: str) -> None:
    document = attempted("a.csv", text.encode())
    if isinstance(document, EdgeError):
        assert document.message.startswith("a.csv ")
    else:
        assert document.text.strip()
        assert tiles(document)
