"""Parsing real files in the real, limited child."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import DocumentError, EdgeError, TooLargeError
from edge_runtime.knowledge.cutting import Cutter
from edge_runtime.knowledge.documents import Limits, ParsedDocument
from edge_runtime.knowledge.encoding import decode
from edge_runtime.knowledge.parsing import read
from edge_runtime.paths import Paths
from models.store import Store
from tests.conftest import EMBEDDER
from tests.edge_runtime.knowledge.pdfs import bomb, locked, pdf


def parsed(name: str, content: bytes, limits: Limits | None = None) -> ParsedDocument:
    """In a child, sealed and limited."""

    async def cut() -> ParsedDocument:
        cutter = Cutter(_tokenizer())
        try:
            return (await cutter.cut(name, content, limits or Limits())).document
        finally:
            cutter.close()

    return asyncio.run(cut())


def _tokenizer() -> Path:
    return Store(Paths.from_environment().models, quota_bytes=2**60).get(EMBEDDER).files["tokenizer"]


def headed(document: ParsedDocument) -> list[tuple[tuple[str, ...], str]]:
    return [(one.heading, document.text[one.start : one.end].strip()) for one in document.sections]


def tiles(document: ParsedDocument) -> bool:
    ends = [0, *(one.end for one in document.sections)]
    return [one.start for one in document.sections] == ends[:-1] and ends[-1] == len(document.text)


# ---- in the child --------------------------------------------------------------------------------------------------


def test_markdown_keeps_its_text_and_its_headings() -> None:
    source = "# Pump\n\nIntro.\n\n## Alarms\n\nE17: low.\n\n```\n# no heading\n```\n\nSecond\n------\nlast"
    document = parsed("pump.md", source.encode())
    assert (document.format, document.title, document.text) == ("markdown", "Pump", source)
    assert [heading for heading, _ in headed(document)] == [("Pump",), ("Pump", "Alarms"), ("Pump", "Second")]
    assert tiles(document)


def test_a_pdf_gives_pages_with_divided_words_joined() -> None:
    document = parsed("manual.pdf", pdf([["The mainte-", "nance of X-20."], ["Second page."]]))
    assert (document.format, document.pages) == ("pdf", 2)
    assert [(one.page, document.text[one.start : one.end].strip()) for one in document.sections] == [
        (1, "The maintenance of X-20."),
        (2, "Second page."),
    ]
    assert tiles(document)
    assert document.warnings == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("scan.pdf", pdf([None, None]), "is a scan and holds no text: run OCR first"),
        ("locked.pdf", locked(pdf([["secret"]]), "pass"), "is encrypted: remove the password"),
        ("short.pdf", pdf([["words"] * 300])[:-900], "is cut short"),
        ("broken.pdf", b"%PDF-1.7\n" + b"junk " * 200 + b"%%EOF", "is damaged"),
        ("empty.txt", b"", "is empty"),
        ("blank.md", b" \n\n\t", "is empty"),
        ("program", b"\x7fELF" + bytes(range(256)) * 8, "is not a text"),
        ("photo.jpg", bytes(range(1, 256)) * 30, "is not a text"),
        ("book.docx", b"PK\x03\x04" + bytes(300), "is damaged"),
        ("app.html", b"<html><body><script>render()</script></body></html>", "holds no text"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(name: str, content: bytes, said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parsed(name, content)
    assert said in caught.value.message
    assert caught.value.message.startswith(name)


def test_a_pdf_that_opens_without_a_password_is_read() -> None:
    assert "free text" in parsed("owner.pdf", locked(pdf([["free text"]]), "")).text


def test_pages_that_are_scans_are_named_and_the_others_kept() -> None:
    document = parsed("mixed.pdf", pdf([["one"], None, ["three"], None]))
    assert "2, 4" in document.warnings[0]
    assert "three" in document.text


def test_a_zip_bomb_is_refused_within_the_memory_limit() -> None:
    with pytest.raises(DocumentError, match="bomb"):
        parsed("bomb.pdf", bomb(400 * 2**20), Limits(memory_bytes=512 * 2**20))


def test_a_file_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(DocumentError, match="took more than 1 s"):
        parsed("slow.csv", b"a,b,c\n" + b"1,2,3\n" * 3_000_000, Limits(seconds=1, text_chars=10**8))


def test_a_file_that_needs_too_much_memory_is_refused() -> None:
    with pytest.raises(DocumentError, match="memory"):
        parsed("large.txt", b"word " * (12 * 2**20), Limits(memory_bytes=160 * 2**20, text_chars=10**9))


def test_too_many_bytes_and_too_many_characters_are_refused() -> None:
    with pytest.raises(TooLargeError, match="document_bytes"):
        parsed("a.txt", b"x" * 101, Limits(document_bytes=100))
    with pytest.raises(TooLargeError, match="text_chars"):
        parsed("a.txt", b"x" * 101, Limits(text_chars=100))
    with pytest.raises(TooLargeError, match="text_chars"):
        parsed("a.pdf", pdf([["word " * 10]] * 3), Limits(text_chars=100))


_SEALED = """
import asyncio, sys
from pathlib import Path
from edge_runtime.seal import Access, seal
tokenizer = Path(sys.argv[1])
seal(Access(read=(tokenizer.parent,)))
from edge_runtime.knowledge.cutting import Cutter
from edge_runtime.knowledge.documents import Limits
print(asyncio.run(Cutter(tokenizer).cut("a.md", b"# Heading", Limits())).document.title)
"""


def test_a_sealed_process_can_have_files_parsed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SEALED, str(_tokenizer())], capture_output=True, text=True, cwd=Path.cwd()
    )
    assert done.stdout == "Heading\n", done.stderr


# ---- the readers themselves ----------------------------------------------------------------------------------------


def attempted(name: str, content: bytes) -> ParsedDocument | EdgeError:
    try:
        return quick(name, content)
    except EdgeError as error:
        return error


def quick(name: str, content: bytes) -> ParsedDocument:
    return read(name, content, text_chars=10**6)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_text_in_any_common_encoding_is_read(encoding: str) -> None:
    text = "Die Düse schließt bei 3 °C. Gänzlich ohne Öl betreiben."
    assert quick("a.txt", text.encode(encoding)).text == text


def test_line_ends_and_terminal_colours_are_made_plain() -> None:
    assert quick("a.log", b"one\r\n\x1b[31mtwo\x1b[0m\rthree").text == "one\ntwo\nthree"


def test_plain_text_headings_are_found() -> None:
    text = "MANUAL\n\nintro text\n\n1. Safety\n\nWear gloves.\n\n1.2 Tools\n\nNone.\n\nCare\n====\nOil it."
    assert [heading for heading, _ in headed(quick("a.txt", text.encode()))] == [
        ("MANUAL",),
        ("MANUAL", "1. Safety"),
        ("MANUAL", "1. Safety", "1.2 Tools"),
        ("Care",),
    ]


def test_html_keeps_words_headings_lists_and_tables_and_drops_the_rest() -> None:
    page = (
        "<!doctype html><html><head><title>Station &amp; pumps</title><style>p{}</style></head><body><nav>Home</nav>"
        "<h1>Pump <b>X</b></h1><p>Para one\n  goes <i>on</i>.<br>New line.</p><ul><li><p>a</p></li><li>b</li></ul>"
        "<h2>Torque</h2><table><tr><th>Bolt</th><th>Nm</th></tr><tr><td>M8</td><td>25</td></tr></table>"
        "<pre>a\n  b</pre><p hidden>no</p>"
        "<p style='display: none'>no</p><script>alert('x')</script><!-- no --></body></html>"
    )
    document = quick("page.htm", page.encode())
    assert document.title == "Station & pumps"
    assert headed(document) == [
        (("Pump X",), "Pump X\n\nPara one goes on.\nNew line.\n\n- a\n- b"),
        (("Pump X", "Torque"), "Torque\n\nBolt | Nm\nM8 | 25\n\na\n  b"),
    ]
    assert tiles(document)


@given(st.binary(max_size=400), st.sampled_from(["a.txt", "a.md", "a.html", "a.pdf"]))
def test_any_bytes_give_a_document_or_a_clear_error(content: bytes, name: str) -> None:
    match attempted(name, content):
        case EdgeError(message=message):
            assert message.startswith(name)
        case ParsedDocument() as document:
            assert document.text.strip()
            assert tiles(document)
            assert "\0" not in document.text


_MARKUP = "<h1> </h1> <h2> <p> </p> <li> <ul> <table> <td> <tr> <pre> </pre> <br> <div> text &amp;"


@given(st.lists(st.sampled_from([*_MARKUP.split(), "\n"]), max_size=40))
def test_any_markup_gives_sections_that_follow_each_other(parts: list[str]) -> None:
    document = quick("a.html", ("<html>" + " ".join([*parts, "end"])).encode())
    assert "end" in document.text
    assert tiles(document)


@given(st.text(alphabet="#=-`~ ab\n*", max_size=200))
def test_any_markdown_gives_sections_that_follow_each_other(source: str) -> None:
    if source.strip():
        document = quick("a.md", source.encode())
        assert document.text == source
        assert tiles(document)


def test_a_container_of_text_is_not_a_text() -> None:
    with pytest.raises(DocumentError, match="is a ZIP archive"):
        decode("letter.docx", b"PK\x03\x04 plain words")
