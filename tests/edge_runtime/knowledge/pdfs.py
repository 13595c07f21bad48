"""Builds small PDF files (ISO 32000-1) for the tests, whole and broken."""

from __future__ import annotations

import io
import zlib

from pypdf import PdfReader, PdfWriter

IMAGE = b"<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8 /Length 1 >>"


def pdf(pages: list[list[str] | None], *, streams: list[bytes] | None = None) -> bytes:
    """A PDF whose pages show lines of text; None is a page with an image alone. ``streams`` are raw page contents."""
    objects = [b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>", IMAGE + b"\nstream\n\x80\nendstream"]
    kids = []
    raw = streams if streams is not None else [_content(page) for page in pages]
    for page, stream in zip(pages, raw, strict=True):
        filtered = b"/Filter [/FlateDecode /FlateDecode] " if streams is not None else b""
        objects.append(b"<< %s/Length %d >>\nstream\n%s\nendstream" % (filtered, len(stream), stream))
        resource = b"/XObject << /I 3 0 R >>" if page is None else b"/Font << /F 2 0 R >>"
        number = len(objects)
        objects.append(
            b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 600 800] /Contents %d 0 R /Resources << %s >> >>"
            % (3 + 1 + 2 * len(pages), number, resource)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects.append(b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(pages), b" ".join(kids)))
    objects[0] = b"<< /Type /Catalog /Pages %d 0 R >>" % len(objects)
    out = io.BytesIO()
    out.write(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    table = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    for place in places:
        out.write(b"%010d 00000 n \n" % place)
    out.write(b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table))
    return out.getvalue()


def _content(page: list[str] | None) -> bytes:
    if page is None:
        return b"/I Do"
    lines = b" T* ".join(b"(%s) Tj" % line.encode("latin-1") for line in page)
    return b"BT /F 12 Tf 14 TL 50 750 Td %s ET" % lines


def locked(content: bytes, password: str, *, owner: str = "owner") -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(content)))
    writer.encrypt(password, owner, algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def bomb(unpacked_bytes: int) -> bytes:
    """A page whose content unpacks, twice deflated, to ``unpacked_bytes``."""
    packer = zlib.compressobj(9)
    block = b" " * 2**20
    once = b"".join(packer.compress(block) for _ in range(unpacked_bytes // len(block))) + packer.flush()
    return pdf([["x"]], streams=[zlib.compress(once, 9)])


def _assembled(objects: list[bytes]) -> bytes:
    """Objects from number 1 on; the first is the catalogue."""
    out = io.BytesIO()
    out.write(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    table = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    for place in places:
        out.write(b"%010d 00000 n \n" % place)
    out.write(b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table))
    return out.getvalue()


def looped() -> bytes:
    """A page tree that is its own grandchild."""
    tree = b"<< /Type /Pages /Count 4 /Kids [3 0 R 3 0 R] >>"
    return _assembled([b"<< /Type /Catalog /Pages 2 0 R >>", tree, b"<< /Type /Pages /Count 4 /Kids [2 0 R 2 0 R] >>"])


def multiplied(levels: int) -> bytes:
    """A page tree in which each node names the next one ten times: ten to the power of ``levels`` pages."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    for level in range(levels):
        kids = b" ".join([b"%d 0 R" % (level + 3)] * 10)
        objects.append(b"<< /Type /Pages /Count %d /Kids [%s] >>" % (10 ** (levels - level), kids))
    objects.append(b"<< /Type /Page /MediaBox [0 0 9 9] >>")
    return _assembled(objects)


def scripted(line: str) -> bytes:
    """A page with a line of text, and a script that is to run when the file opens."""
    stream = _content([line])
    endless = b"<< /S /JavaScript /JS (while\\(true\\);) >>"
    resources = b"<< /Font << /F 5 0 R >> >>"
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R"
    return _assembled(
        [
            b"<< /Type /Catalog /Pages 2 0 R /OpenAction %s >>" % endless,
            b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
            page + b" /Resources %s /AA << /O %s >> >>" % (resources, endless),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
    )
