"""Builds small DOCX files (ECMA-376) for the tests, whole and hostile."""

from __future__ import annotations

import io
import zipfile

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
KINDS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_RELATIONS = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
_OFFICE = f'<Relationship Id="m" Type="{KINDS}/officeDocument" Target="{{}}"/>'
_CORE_KIND = "http://schemas.openxmlformats.org/package/2006/relationships/metadata/core-properties"
_CORE = f'<Relationship Id="c" Type="{_CORE_KIND}" Target="docProps/core.xml"/>'


def paragraph(words: str, *, style: str = "", properties: str = "") -> str:
    named = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{named}{properties}</w:pPr>{run(words)}</w:p>"


def run(words: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{words}</w:t></w:r>'


def table(rows: list[list[str]]) -> str:
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return "<w:tbl>" + "".join(f"<w:tr>{row}</w:tr>" for row in cells) + "</w:tbl>"


def docx(body: str, *, title: str = "", main: str = "word/document.xml", **parts: str) -> bytes:
    """A document with ``body``; ``parts`` are the contents of word/styles.xml, numbering.xml, footnotes.xml."""
    space = f'xmlns:w="{W}" xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    files = {
        "_rels/.rels": _RELATIONS.format(_OFFICE.format(main) + _CORE),
        main: f"<w:document {space}><w:body>{body}</w:body></w:document>",
        "docProps/core.xml": f'<p xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></p>',
        "word/_rels/document.xml.rels": _RELATIONS.format(
            "".join(f'<Relationship Id="{one}" Type="{KINDS}/{one}" Target="{one}.xml"/>' for one in parts)
        ),
    }
    files |= {f"word/{one}.xml": f"<w:{one} {space}>{content}</w:{one}>" for one, content in parts.items()}
    return packed(files)


def packed(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()
