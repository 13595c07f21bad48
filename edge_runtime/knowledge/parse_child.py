"""``python -P -m edge_runtime.knowledge.parse_child``: reads one file on stdin, writes what it says on stdout.

Limits and seals itself before a byte of the file is looked at: a parser is where a hostile file does its harm.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import PurePath

import msgspec

from edge_runtime.errors import DocumentError, EdgeError, TooLargeError
from edge_runtime.knowledge.documents import ParsedDocument

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


class Unreadable(msgspec.Struct, frozen=True, tag=True):
    """Why there is no document; ``code`` is that of the error."""

    code: str
    message: str


class Parsed(msgspec.Struct, frozen=True, tag=True):
    document: ParsedDocument


def limit(memory_bytes: int, seconds: int) -> None:
    """Address space, CPU time, open files; no file grows and no core is dumped (setrlimit(2))."""
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


def read(name: str, content: bytes, *, text_chars: int, seconds: float = 60) -> ParsedDocument:
    """What ``content`` says, by what it is and, failing that, by its name. Raises DocumentError or TooLargeError.

    ``seconds`` is the wall time after which a reader that goes page by page says how far it came.
    """
    if not content.strip():
        raise DocumentError(f"{name} is empty: nothing was added")
    # The parsers are imported here, behind the limits.
    if content.startswith(_ZIP):
        from edge_runtime.knowledge.docx import read_docx  # noqa: PLC0415

        return read_docx(name, content, text_chars=text_chars)
    if b"%PDF-" in content[:1024]:
        from edge_runtime.knowledge.pdf import read_pdf  # noqa: PLC0415

        return read_pdf(name, content, text_chars=text_chars, seconds=seconds)
    from edge_runtime.knowledge.encoding import decode  # noqa: PLC0415

    text = decode(name, content)
    if len(text) > text_chars:
        raise TooLargeError(f"{name} holds more than {text_chars} characters: split it, or raise knowledge.text_chars")
    return _read_text(name, text, text_chars)


def _read_text(name: str, text: str, text_chars: int) -> ParsedDocument:
    suffix = PurePath(name).suffix.lower()
    opening = text[:512].lstrip().lower()
    if suffix in {".html", ".htm", ".xhtml"} or opening.startswith(("<!doctype html", "<html")):
        from edge_runtime.knowledge.markup import read_html  # noqa: PLC0415

        return read_html(name, text)
    from edge_runtime.knowledge import csv_tables, plain, source_code  # noqa: PLC0415

    if suffix in {".md", ".markdown", ".mdown"}:
        return plain.read_markdown(name, text)
    if suffix in csv_tables.SUFFIXES:
        return csv_tables.read_csv(name, text, text_chars=text_chars)
    found = source_code.language(name, text)
    return plain.read_text(name, text) if found is None else source_code.read_code(name, text, found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="edge_runtime.knowledge.parse_child", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--memory", type=int, required=True, help="bytes of address space")
    parser.add_argument("--seconds", type=int, required=True, help="of CPU time")
    parser.add_argument("--text-chars", type=int, required=True)
    parser.add_argument("--unsealed", action="store_true", help="go on where the kernel cannot seal")
    options = parser.parse_args()
    limit(options.memory, options.seconds)
    from edge_runtime.seal import Access, seal_child  # noqa: PLC0415 (needs ctypes, which is cheap but not needed above)

    seal_child(Access(), unsealed_ok=options.unsealed)
    reply: Parsed | Unreadable
    try:
        content = sys.stdin.buffer.read()
        reply = Parsed(read(options.name, content, text_chars=options.text_chars, seconds=options.seconds))
        body = msgspec.msgpack.encode(reply)
    except MemoryError:
        body = _failure(
            DocumentError(
                f"{options.name} needs more than {options.memory // 2**20} MiB of memory to read (a zip bomb?): "
                "it was not read; knowledge.parse_memory_bytes in edge.toml is the limit"
            )
        )
    except EdgeError as error:
        body = _failure(error)
    except Exception as error:  # noqa: BLE001 (the process's outer edge: whatever a parser raises is the file's fault)
        body = _failure(
            DocumentError(f"{options.name} is damaged and cannot be read ({type(error).__name__}: {error})")
        )
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()
    return 0


def _failure(error: EdgeError) -> bytes:
    return msgspec.msgpack.encode(Unreadable(error.code, error.message))


if __name__ == "__main__":
    sys.exit(main())
