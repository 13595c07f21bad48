"""Documents read and cut in forks of a child that has everything loaded: what comes back, and what a bad one may do."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_runtime.errors import DocumentError, EdgeError, ModelFileError, TooLargeError
from edge_runtime.knowledge.cut_child import Cut, cut
from edge_runtime.knowledge.cutting import Cutter
from edge_runtime.knowledge.documents import Limits
from edge_runtime.knowledge.parsing import read as parsed
from edge_runtime.knowledge.tokens import token_offsets
from tests.edge_runtime.knowledge.pdfs import pdf

NOTE = b"# Pump\n\nIt turns at 4 rpm. It is green.\n"


def read(tokenizer: Path, *files: tuple[str, bytes], limits: Limits | None = None) -> list[Cut | EdgeError]:
    """One after the other by one child; an error stands for the document that it refused."""

    async def each() -> list[Cut | EdgeError]:
        cutter = Cutter(tokenizer, at_once=1)
        found: list[Cut | EdgeError] = []
        for name, content in files:
            try:
                found.append(await cutter.cut(name, content, limits or Limits()))
            except EdgeError as error:
                found.append(error)
        cutter.close()
        return found

    return asyncio.run(each())


def children() -> list[int]:
    """Of every thread of this process (proc(5), children)."""
    listed = [file.read_text("ascii") for file in Path("/proc/self/task").glob("*/children")]
    return [int(one) for line in listed for one in line.split()]


def test_a_document_comes_back_as_it_would_be_read_and_cut_alone(embedder_files: tuple[Path, Path]) -> None:
    offsets = token_offsets(embedder_files[1])
    text = " ".join(f"Valve {number} feeds basin {number * 7}." for number in range(200)).encode()
    files = [("note.md", NOTE), ("valves.txt", text), ("two.pdf", pdf([["Page one."], ["Page two."]]))]
    for (name, content), found in zip(files, read(embedder_files[1], *files), strict=True):
        assert found == cut(parsed(name, content, text_chars=10**6), offsets, Limits())


@pytest.mark.parametrize(
    ("content", "limits", "kind", "told"),
    [
        (b"", Limits(), DocumentError, "is empty"),
        (b"\x7fELF\0\0\1", Limits(), DocumentError, "is not a"),
        (b"x" * 11, Limits(document_bytes=10), TooLargeError, "the limit is 10"),
        (b"word " * 100, Limits(text_chars=10), TooLargeError, "more than 10 characters"),
    ],
)
def test_what_is_refused_says_why_and_the_next_document_is_read(
    embedder_files: tuple[Path, Path], content: bytes, limits: Limits, kind: type[EdgeError], told: str
) -> None:
    refused, good = read(embedder_files[1], ("bad.txt", content), ("a.md", b"Good."), limits=limits)
    assert type(refused) is kind
    assert told in str(refused)
    assert isinstance(good, Cut)


def test_a_document_that_takes_too_long_is_given_up_and_the_next_one_is_read(
    embedder_files: tuple[Path, Path],
) -> None:
    long = " ".join(f"Valve {number} feeds basin {number * 7}." for number in range(400_000)).encode()
    slow, good = read(embedder_files[1], ("long.txt", long), ("a.md", b"Good."), limits=Limits(seconds=1))
    assert isinstance(slow, DocumentError)
    assert "took more than 1 s" in slow.message
    assert isinstance(good, Cut)


def test_a_child_that_was_killed_while_it_was_idle_is_replaced(embedder_files: tuple[Path, Path]) -> None:
    async def twice() -> Sequence[Cut]:
        cutter = Cutter(embedder_files[1])
        before = set(children())
        one = await cutter.cut("a.md", NOTE, Limits())
        (child,) = set(children()) - before
        os.kill(child, signal.SIGKILL)
        other = await cutter.cut("a.md", NOTE, Limits())
        cutter.close()
        return one, other

    one, other = asyncio.run(twice())
    assert one == other


def test_giving_up_ends_the_child_and_leaves_no_process(embedder_files: tuple[Path, Path]) -> None:
    async def give_up() -> set[int]:
        cutter = Cutter(embedder_files[1])
        before = set(children())
        long = " ".join(f"Valve {number} feeds basin." for number in range(400_000)).encode()
        reading = asyncio.create_task(cutter.cut("long.txt", long, Limits()))
        while not set(children()) - before:  # noqa: ASYNC110 (there is no event for it)
            await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert isinstance(await cutter.cut("a.md", NOTE, Limits()), Cut)
        cutter.close()
        return set(children()) - before

    assert not asyncio.run(give_up())


def test_a_tokenizer_that_cannot_be_read_is_said_to_be_missing(tmp_path: Path) -> None:
    (refused,) = read(tmp_path / "tokenizer.json", ("a.md", NOTE))
    assert isinstance(refused, ModelFileError)
    assert "fetch the model again" in refused.message
