"""Files that are broken, hostile, or something else than they say: a text or a clear error, and always in the end."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import DocumentError, EdgeError
from edge_runtime.knowledge.chunking import chunk
from edge_runtime.knowledge.documents import Limits
from edge_runtime.knowledge.pdf import read_pdf
from edge_runtime.knowledge.sentences import sentences
from tests.edge_runtime.knowledge.docx_files import docx, packed, paragraph, table
from tests.edge_runtime.knowledge.pdfs import bomb, locked, looped, multiplied, pdf, scripted
from tests.edge_runtime.knowledge.test_parse import attempted, headed, parsed, quick, tiles


def words(text: str) -> Sequence[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\w{1,4}|[^\w\s]", text)]


# ---- encodings -----------------------------------------------------------------------------------------------------


def test_stray_latin_bytes_in_a_utf_8_text_spoil_nothing_else() -> None:
    content = "Größe und Länge, жидкость, 水\n".encode() * 20 + b"K\xfchlung \x80 5\n" + "Ende: Öl\n".encode()
    text = quick("a.txt", content).text
    assert text.startswith("Größe und Länge, жидкость, 水\n")
    assert text.endswith("Kühlung € 5\nEnde: Öl\n")


def test_a_text_in_latin_1_is_not_taken_for_mixed() -> None:
    assert quick("a.txt", "Kühlung für Öl: größer".encode("latin-1")).text == "Kühlung für Öl: größer"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_read_in_other_scripts_too(encoding: str) -> None:
    text = "Насос 12 качает воду.\nДавление 3 бар.\n" * 10
    assert quick("a.txt", text.encode(encoding)).text == text


def test_zeros_that_a_power_cut_left_behind_are_dropped() -> None:
    assert quick("a.log", b"10:00 started\n" + bytes(5000)).text == "10:00 started\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.doc", b"\xd0\xcf\x11\xe0" + bytes(2000), "old Office file"),
        ("a.docx", b"{\\rtf1 words}", "RTF"),
        ("a.csv", b"\x1f\x8b\x08" + bytes(range(256)), "is not a text"),
        ("a.py", bytes(range(256)) * 40, "is not a text"),
        ("a.html", b"SQLite format 3\0" + bytes(100), "is not a text"),
        ("a.xlsx", packed({"xl/workbook.xml": "<x/>"}), "is an Excel workbook"),
        ("renamed.docx", packed({"xl/workbook.xml": "<x/>"}), "is an Excel workbook"),
        ("frames.html", b"<html><frameset><frame src=a.html><frame src=b.html></frameset></html>", "a.html, b.html"),
    ],
)
def test_what_cannot_be_read_is_refused_by_what_it_is(name: str, content: bytes, said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        quick(name, content)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", pdf([["words"]]), "pdf"),
        ("a.pdf", docx(paragraph("words")), "docx"),
        ("a.csv", b"<!doctype html><p>words", "html"),
        ("a.pdf", b"plain words", "text"),
        ("a.docx", b"# words", "text"),
    ],
)
def test_a_file_is_read_as_what_it_is_and_not_as_what_it_is_called(name: str, content: bytes, kind: str) -> None:
    document = quick(name, content)
    assert document.format == kind
    assert "words" in document.text


# ---- HTML ----------------------------------------------------------------------------------------------------------


def test_the_main_content_is_read_and_what_surrounds_it_is_not() -> None:
    page = (
        "<body><header><a href=/>Logo</a></header><div role=search>Find</div><main><article><header><h1>Pump"
        "<a class=headerlink href=#p>¶</a></h1></header><p>It pumps wa&shy;ter&nbsp;&amp; oil.</p>"
        "<ol start=3><li>Open</li>"
        "<li>Close<ul><li>left</li></ul></li></ol><aside>Note</aside></article></main><footer>Legal</footer></body>"
    )
    document = quick("a.html", page.encode())
    assert headed(document) == [
        (("Pump",), "Pump\n\nIt pumps water & oil.\n\n3. Open\n4. Close\n- left\n\nNote"),
    ]


def test_a_main_element_that_holds_next_to_nothing_is_not_trusted() -> None:
    page = f"<body><main><p>x</p></main><div>{'All of the text is here. ' * 9}</div><footer>Legal</footer></body>"
    assert quick("a.html", page.encode()).text.startswith("x\n\nAll of the text is here.")


@pytest.mark.parametrize("tag", ["div", "span", "b", "p", "table", "li", "font"])
def test_a_hundred_thousand_levels_are_read_or_refused(tag: str) -> None:
    document = attempted("a.html", (f"<{tag}>" * 100_000 + "end").encode())
    said = document.message if isinstance(document, EdgeError) else document.text
    assert "10000 deep" in said or said.endswith("end")


# ---- PDF -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("loop.pdf", looped(), "none of its pages can be read"),
        ("many.pdf", multiplied(6), "1000000 pages"),
        ("more.pdf", multiplied(9), "is damaged"),
        ("locked.pdf", locked(pdf([["secret"]]), "pass"), "is encrypted"),
        ("packed.pdf", bomb(1500 * 2**20), "zip bomb"),
    ],
)
def test_a_hostile_pdf_is_refused_in_the_limited_child(name: str, content: bytes, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        parsed(name, content)


def test_a_pdf_of_ten_thousand_pages_is_read_to_its_last_page() -> None:
    document = parsed("manual.pdf", pdf([[f"Pump P{number} needs {number} Nm."] for number in range(10_000)]))
    assert document.pages == 10_000
    assert document.text[document.sections[-1].start :] == "Pump P9999 needs 9999 Nm."
    assert document.sections[-1].page == 10_000


def test_a_pdf_too_long_for_its_time_says_how_far_it_came() -> None:
    with pytest.raises(DocumentError, match=r"has 300 pages, of which \d+ could be read"):
        read_pdf("long.pdf", pdf([["words"]] * 300), text_chars=10**6, seconds=0)


def test_a_script_in_a_pdf_never_runs() -> None:
    assert parsed("script.pdf", scripted("Hello text"), Limits(seconds=20)).text == "Hello text"


# ---- all of them ---------------------------------------------------------------------------------------------------

_NAMES = (
    "a.txt",
    "a.md",
    "a.html",
    "a.csv",
    "a.tsv",
    "a.py",
    "a.c",
    "a.js",
    "a.json",
    "a.sh",
    "a.sql",
    "a.jsonl",
    "tool",
)
_SOURCES = (
    b"# A\n\nWords here. More words.\n\n- item\n",
    'Größe;Länge\n1,5;2\n"a\nb";3\n'.encode(),
    b"#!/bin/sh\nrun() {\n  echo 'x'\n}\nclass A:\n    def b(self):\n        return {1: 2}\n",
    b"<html><body><h1>T</h1><table><tr><td>1<td>2</table><pre>a\n b</pre></body></html>",
    pdf([["One line."], ["Two."]]),
    docx(paragraph("One") + table([["a", "b"]])),
)


@st.composite
def torn(draw: st.DrawFn) -> bytes:
    """A real file with some bytes changed, cut out, or put in twice."""
    content = bytearray(draw(st.sampled_from(_SOURCES)))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.integers(0, 2)):
            case 0:
                content[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
            case 1:
                del content[at : at + draw(st.integers(1, 30))]
            case _:
                content[at:at] = content[at : at + draw(st.integers(1, 200))]
    return bytes(content)


@settings(max_examples=250, deadline=None)
@given(st.one_of(torn(), st.binary(max_size=300)), st.sampled_from(_NAMES))
def test_any_file_gives_chunks_and_sentences_of_all_its_text_or_a_clear_error(content: bytes, name: str) -> None:
    document = attempted(name, content)
    if isinstance(document, EdgeError):
        assert document.message.startswith(name)
        return
    assert tiles(document)
    black = {at for at, character in enumerate(document.text) if not character.isspace()}
    chunks = chunk(document.text, document.sections, words, max_tokens=100, overlap=10)
    assert black <= {at for one in chunks for at in range(one.start, one.end)}
    assert black <= {at for one in sentences(document) for at in range(one.start, one.end)}
    assert all(one.tokens <= 100 for one in chunks)
