"""Man pages as text: the macros of man(7) and mdoc(7) on small pages, and whatever else a file may hold."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import man_pages

MAN = r""".\" A comment.
.ie n .ds Aq '
.TH GLAND 1 2026
.SH NAME
gland \- tighten the \fBgland\fR bolts
.SH "SYNOPSIS"
.B gland
[\fI\,OPTION\/\fR]... \-\-torque=\fIN\fR
.SH OPTIONS
.TP
\fB\-t\fR, \fB\-\-torque\fR
the torque \(em at most 25\~Nm;
.BR see (1)
.\" hidden
.IP \(bu 2
one point
.de XX
never shown
..
.ie n \{\
hidden too
.\}
.nf
  first  line
second line
.fi
.TS
l l.
cell	other
.TE
"""
MDOC = """.Dd January 1, 2026
.Dt GLAND 8
.Sh NAME
.Nm gland
.Nd tighten bolts
.Sh DESCRIPTION
.Nm
with
.Fl t Ar torque
does as
.Xr gland 1
says .
"""


def page(folder: Path, text: str | bytes, name: str = "gland.1.gz") -> man_pages.Page | None:
    data = text.encode() if isinstance(text, str) else text
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return man_pages.read(path)


def test_a_page_of_man_macros_keeps_its_words_and_headings(tmp_path: Path) -> None:
    found = page(tmp_path, MAN)
    assert found is not None
    assert (found.name, found.family, found.description) == ("gland.1", "gland", "tighten the gland bolts")
    assert found.text.startswith("## SYNOPSIS\n\ngland [OPTION]... --torque=N\n\n## OPTIONS\n\n-t, --torque the torque")
    for kept in ("- at most 25 Nm; see(1)", "* one point", "\nfirst line\nsecond line\n", "cell other"):
        assert kept in found.text
    for dropped in ("hidden", "never", "NAME", "\\", "comment"):
        assert dropped not in found.text


def test_a_page_of_mdoc_macros_keeps_its_words(tmp_path: Path) -> None:
    found = page(tmp_path, MDOC, "gland.8")
    assert found is not None
    assert found.description == "tighten bolts"
    assert found.text == "## DESCRIPTION\n\ngland with -t torque does as gland(1) says ."


@pytest.mark.parametrize(
    "text",
    ["", ".so man1/other.1\n", ".TH A 1\n.SH SYNOPSIS\nno name\n", ".TH A 1\n.SH NAME\nno description\n", "\0\1\2"],
)
def test_a_page_that_is_none_is_passed_over(tmp_path: Path, text: str) -> None:
    assert page(tmp_path, text) is None


def test_a_damaged_or_missing_file_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "cut.1.gz"
    path.write_bytes(gzip.compress(MAN.encode())[:-20])
    assert man_pages.read(path) is None
    assert man_pages.read(tmp_path / "absent.1") is None


@given(st.text(st.sampled_from(".'\\\"abBRSHTIn f*([]{}\n\t-"), max_size=200))
def test_any_text_is_converted(text: str) -> None:
    for heading, body in man_pages.convert(f".TH A 1\n{text}"):
        assert heading
        assert body == body.strip()
