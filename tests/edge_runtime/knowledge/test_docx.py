"""Word documents as their reader sees them, and files that only say they are one."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import DocumentError, EdgeError, TooLargeError
from edge_runtime.knowledge.documents import ParsedDocument
from edge_runtime.knowledge.docx import read_docx
from edge_runtime.knowledge.ooxml import Package
from tests.edge_runtime.knowledge.docx_files import W, docx, packed, paragraph, run, table
from tests.edge_runtime.knowledge.test_parse import attempted, headed, tiles

STYLES = """
<w:style w:type="paragraph" w:default="1" w:styleId="Standard"><w:name w:val="Normal"/></w:style>
<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
<w:style w:type="paragraph" w:styleId="Titre2"><w:name w:val="Titre 2"/></w:style>
<w:style w:type="paragraph" w:styleId="Kapitel">
  <w:name w:val="Firmenkapitel"/><w:basedOn w:val="berschrift1"/></w:style>
<w:style w:type="paragraph" w:styleId="Tief">
  <w:name w:val="Deep one"/><w:pPr><w:outlineLvl w:val="2"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="Titel"><w:name w:val="Title"/></w:style>
<w:style w:type="paragraph" w:styleId="TOC1"><w:name w:val="toc 1"/></w:style>
<w:style w:type="paragraph" w:styleId="RingA"><w:name w:val="A"/><w:basedOn w:val="RingB"/></w:style>
<w:style w:type="paragraph" w:styleId="RingB"><w:name w:val="B"/><w:basedOn w:val="RingA"/></w:style>
"""
NUMBERING = """
<w:abstractNum w:abstractNumId="7">
  <w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="%1."/></w:lvl>
  <w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="%1.%2)"/></w:lvl>
</w:abstractNum>
<w:abstractNum w:abstractNumId="8">
  <w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/><w:lvlText w:val="o"/></w:lvl></w:abstractNum>
<w:num w:numId="1"><w:abstractNumId w:val="7"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="8"/></w:num>
"""


def read(content: bytes, *, text_chars: int = 10**6) -> ParsedDocument:
    document = read_docx("a.docx", content, text_chars=text_chars)
    assert tiles(document)
    return document


def listed(words: str, number: int, level: int = 0) -> str:
    return paragraph(words, properties=f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')


def test_headings_are_found_by_localised_based_on_and_outline_styles() -> None:
    body = (
        paragraph("Manual", style="Titel")
        + paragraph("Pumpe", style="berschrift1")
        + paragraph("It pumps.")
        + paragraph("Détail", style="Titre2")
        + paragraph("More.")
        + paragraph("Own", style="Kapitel")
        + paragraph("Deep", style="Tief")
        + paragraph("End.")
        + paragraph("Direct", properties='<w:outlineLvl w:val="0"/>')
        + paragraph("Ring", style="RingA")
        + paragraph("Pumpe 3", style="TOC1")
    )
    document = read(docx(body, styles=STYLES, title=" Station\n 12 "))
    assert document.format == "docx"
    assert document.title == "Station 12"
    assert [heading for heading, _ in headed(document)] == [
        ("Manual",),
        ("Manual", "Pumpe"),
        ("Manual", "Pumpe", "Détail"),
        ("Manual", "Own"),
        ("Manual", "Own", "Deep"),
        ("Manual", "Direct"),
    ]
    assert "Pumpe 3" not in document.text


def test_headings_are_found_by_identifier_where_the_styles_are_missing() -> None:
    document = read(docx(paragraph("One", style="Heading1") + paragraph("x") + paragraph("Two", style="berschrift2")))
    assert [heading for heading, _ in headed(document)] == [("One",), ("One", "Two")]
    assert document.title == "One"


def test_lists_carry_the_numbers_that_word_draws() -> None:
    body = listed("Open", 1) + listed("left", 1, 1) + listed("right", 1, 1) + listed("Close", 1) + listed("loose", 2)
    assert read(docx(body, numbering=NUMBERING)).text == ("1. Open\n  1.a) left\n  1.b) right\n2. Close\n- loose")


def test_tables_are_rows_also_inside_each_other() -> None:
    inner = "<w:tbl><w:tr><w:tc>" + paragraph("in") + "</w:tc><w:tc>" + paragraph("side") + "</w:tc></w:tr></w:tbl>"
    body = table([["Bolt", "Nm"], ["M8", "25"]]) + f"<w:tbl><w:tr><w:tc>{inner}{paragraph('x')}</w:tc></w:tr></w:tbl>"
    assert read(docx(body)).text == "Bolt | Nm\nM8 | 25\n\nin | side x"


def test_what_was_deleted_or_hidden_or_is_a_field_code_is_left_out() -> None:
    body = (
        f"<w:p>{run('Set ')}<w:del>{run('9')}<w:r><w:delText>8</w:delText></w:r></w:del><w:ins>{run('25 Nm')}</w:ins>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>secret</w:t></w:r><w:r><w:instrText>PAGE</w:instrText></w:r></w:p>"
        f"<w:p><w:moveFrom>{run('gone')}</w:moveFrom></w:p><w:p><w:moveTo>{run('here')}</w:moveTo></w:p>"
        "<w:tbl><w:tr><w:trPr><w:del/></w:trPr><w:tc>"
        + paragraph("row")
        + "</w:tc></w:tr></w:tbl>"
        + paragraph("One", properties="<w:rPr><w:del/></w:rPr>")
        + paragraph(" line.")
    )
    assert read(docx(body)).text == "Set 25 Nm\n\nhere\n\nOne line."


def test_notes_follow_their_paragraph_and_text_boxes_are_read_once() -> None:
    note = '<w:footnote w:id="0" w:type="separator"><w:p/></w:footnote>'
    note += f'<w:footnote w:id="2">{paragraph(" At 20 °C.")}</w:footnote>'
    box = f"<w:txbxContent>{paragraph('In the box')}</w:txbxContent>"
    body = (
        f'<w:p>{run("25 Nm")}<w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
        f"<w:p>{run('Outer')}<w:r><mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback>"
        f"</mc:AlternateContent></w:r>{run(' text')}</w:p>"
    )
    assert read(docx(body, footnotes=note)).text == "25 Nm[1]\n[1] At 20 °C.\n\nOuter text\n\nIn the box"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (docx(""), "holds no text"),
        (docx(paragraph("x"))[:-40], "damaged"),
        (packed({"_rels/.rels": "<a/>", "xl/workbook.xml": "<workbook/>"}), "is an Excel workbook"),
        (packed({"ppt/presentation.xml": "<p/>"}), "is a PowerPoint"),
        (packed({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "<x/>"}), "OpenDocument"),
        (packed({"letter.txt": "words"}), "is a ZIP archive"),
        (packed({"word/document.xml": "<w:document"}), "is damaged"),
        (packed({"word/document.xml": f'<w:x xmlns:w="{W}"/>'}), "is not a Word document"),
        (b"PK\x05\x06" + bytes(18), "is a ZIP archive"),
    ],
)
def test_what_is_no_document_is_refused_with_what_it_is(content: bytes, said: str) -> None:
    with pytest.raises(DocumentError, match=said) as caught:
        read(content)
    assert caught.value.message.startswith("a.docx ")


def test_entities_are_refused_before_they_are_expanded() -> None:
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha"}">' for n in range(12))
    text = f'<w:document xmlns:w="{W}"><w:body><w:p><w:r><w:t>&e11;</w:t></w:r></w:p></w:body></w:document>'
    bomb = f"<!DOCTYPE d [{lines}]>{text}"
    outside = f'<!DOCTYPE d SYSTEM "file:///etc/passwd"><w:document xmlns:w="{W}"/>'
    for content in (bomb, outside):
        with pytest.raises(DocumentError, match="declares entities"):
            read(packed({"word/document.xml": content}))


def test_a_part_that_unpacks_to_far_more_than_it_should_is_refused() -> None:
    with pytest.raises(DocumentError, match="zip bomb"):
        read(docx(paragraph(" " * (40 * 2**20))), text_chars=10**9)


def test_too_many_parts_and_too_deep_nesting_are_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(20_001):
            archive.writestr(f"{number}", "")
    with pytest.raises(DocumentError, match="20001 parts"):
        Package("a.docx", out.getvalue())
    with pytest.raises(DocumentError, match="deep"):
        read(docx("<w:tbl>" * 2000 + "</w:tbl>" * 2000))


def test_a_text_over_the_limit_is_refused() -> None:
    with pytest.raises(TooLargeError, match="text_chars"):
        read(docx(paragraph("word " * 100)), text_chars=100)


_ELEMENTS = ["p", "tbl", "tr", "tc", "r", "t", "txbxContent", "del", "pPr", "footnote", "body", "rPr", "vanish", "br"]


@st.composite
def bodies(draw: st.DrawFn, depth: int = 4) -> str:
    parts = []
    for name in draw(st.lists(st.sampled_from([*_ELEMENTS, "words"]), max_size=5)):
        inner = draw(bodies(depth - 1)) if depth else "x"
        parts.append(" some words " if name == "words" else f"<w:{name}>{inner}</w:{name}>")
    return "".join(parts)


@settings(max_examples=80, deadline=None)
@given(bodies())
def test_elements_in_any_order_give_a_document_or_a_clear_error(body: str) -> None:
    document = attempted("a.docx", docx(body + paragraph("end")))
    if isinstance(document, EdgeError):
        assert document.message.startswith("a.docx ")
    else:
        assert "end" in document.text
        assert tiles(document)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_damaged_file_gives_a_document_or_a_clear_error(data: st.DataObject) -> None:
    content = bytearray(docx(paragraph("One", style="Titel") + table([["a", "b"]]), styles=STYLES))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    document = attempted("a.docx", bytes(content))
    assert tiles(document) if isinstance(document, ParsedDocument) else document.message.startswith("a.docx ")
