"""Adds one document: parse in a limited child, cut, embed every word of it, store in one transaction."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import numpy as np

from edge_runtime.errors import TooLargeError
from edge_runtime.knowledge.chunking import chunk
from edge_runtime.knowledge.documents import Chunk, Limits, ParsedDocument, Span
from edge_runtime.knowledge.embedder import Embedder
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.parse import parse
from edge_runtime.knowledge.records import Matrix, PreparedDocument
from edge_runtime.knowledge.sentences import split
from edge_runtime.knowledge_protocol import Document, DocumentAdded

_TEXTS_AT_ONCE = 64  # the child splits a request into tokens in one go: more would keep questions waiting


async def ingest(  # noqa: PLR0917 (six, as everywhere in the project)
    index: Index,
    embedder: Embedder,
    name: str,
    content: bytes,
    collection: str,
    limits: Limits,
    *,
    store: Callable[[PreparedDocument], Awaitable[Document]] | None = None,
) -> DocumentAdded:
    """Store ``content`` under ``name``, in place of an older document of that name; the same bytes change nothing.

    Cancelled before everything is embedded, it leaves nothing behind. ``store`` puts the prepared document into the
    index; None does that and no more.

    Raises:
        DocumentError: the file cannot be read, with what to do about it.
        TooLargeError: over ``limits.document_bytes`` or ``limits.text_chars``.
        StorageError: the disk is full or the index is damaged; the older document is still there.
        EngineError: the embedder is not there.
    """
    if len(content) > limits.document_bytes:
        raise TooLargeError(
            f"{name} has {len(content)} bytes and the limit is {limits.document_bytes}: split it, or raise "
            "knowledge.document_bytes in edge.toml"
        )
    digest = hashlib.sha256(content).hexdigest()
    present = await asyncio.to_thread(index.same, collection, name, digest)
    if present is not None:
        return DocumentAdded(document=present, unchanged=True)
    parsed = await parse(name, content, limits)
    chunks, sentences = await asyncio.to_thread(_cut, parsed, embedder, limits)
    windows = await _embed(embedder, [parsed.text[one.start : one.end] for one in chunks], pool=False)
    pooled = await _embed(embedder, [parsed.text[one.start : one.end] for one in sentences], pool=True)
    document = PreparedDocument(
        name=name,
        collection=collection,
        format=parsed.format,
        sha256=digest,
        title=parsed.title,
        text=parsed.text,
        pages=parsed.pages,
        chunks=chunks,
        windows=windows,
        sentences=sentences,
        sentence_vectors=np.vstack(pooled) if pooled else np.empty((0, 0), np.float32),
    )
    stored = await (store(document) if store is not None else asyncio.to_thread(index.add, document))
    return DocumentAdded(document=stored, warnings=list(parsed.warnings))


def _cut(parsed: ParsedDocument, embedder: Embedder, limits: Limits) -> tuple[list[Chunk], list[Span]]:
    chunks = chunk(
        parsed.text,
        parsed.sections,
        embedder.offsets,
        max_tokens=limits.chunk_tokens,
        overlap=limits.chunk_overlap,
    )
    sentences = [
        span for section in parsed.sections for span in split(parsed.text[section.start : section.end], section.start)
    ]
    return chunks, sentences


async def _embed(embedder: Embedder, texts: list[str], *, pool: bool) -> list[Matrix]:
    """The vectors of each text; a text that occurs twice (log lines, table headers) is embedded once."""
    distinct = list(dict.fromkeys(texts))
    rows: dict[str, Matrix] = {}
    for at in range(0, len(distinct), _TEXTS_AT_ONCE):
        part = distinct[at : at + _TEXTS_AT_ONCE]
        vectors = await embedder.embed(part, pool=pool)
        rows.update(zip(part, vectors.rows, strict=True))
    return [rows[text] for text in texts]
