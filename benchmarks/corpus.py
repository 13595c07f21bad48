"""Real texts of this machine in the numbers that the knowledge benchmark needs, by fixed recipes and seeds.

Passages are packed from man pages, documentation and licences, and Python's docstrings; vectors and texts beyond them
are varied copies. The files are the machine's own, so figures compare within one machine.
"""

from __future__ import annotations

import ast
import gzip
import inspect
import json
import random
import re
import sysconfig
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import man_pages
from benchmarks.encoding import CachedEmbedder
from edge_runtime.embedding.windows import unit
from edge_runtime.knowledge.records import Matrix

COUNT = 20_000  # passages that are embedded
QUICK_COUNT = 4_000
HELD = 1_000  # more of them, held out: half stand as queries whole, half by their first words
SIGMA = 0.5  # length of the noise on a unit vector: a copy has a cosine of about 0.89 to its original
CHANGED = 0.2  # share of a varied text's words that are other words of the corpus
SEED = 4
_RECIPE = 1  # of the passages: part of the name of the file that keeps them
_TARGETS = (400, 1100)  # characters that a passage is packed to: most fit one window of the embedder
_SHORTEST = 150
_PER_SOURCE = 12  # passages of one page or file
_PER_FAMILY = 60  # pages of one suite, so that no suite is most of the corpus
_SHARES = {"man pages": 0.5, "documentation": 0.3, "docstrings": 0.2}
_PACKED_PLAIN = {".txt", ".md", ".rst", ".gz", ""}
_MIX = {"question": 0.35, "pasted": 0.10, "keywords": 0.25, "code": 0.15, "phrase": 0.15}
_ASKED = ("How can I {}?", "What is used to {}?", "Which command or function will {}?", "I need to {}, what do I read?")
_CODE = re.compile(r"--[a-z][a-z-]{2,}|\b[A-Z]{2,}[A-Z0-9]*[-_]?[0-9A-Z_]+\b|\b\w+(?:[._]\w+)+\b|\b\w{2,}\([1-8]\)")


@dataclass(frozen=True, slots=True)
class Query:
    text: str
    kind: str  # a key of the stated mix


@dataclass(frozen=True, slots=True)
class Corpus:
    """``rows`` (len(texts), width) float32 are the unit vectors of ``texts``, ``held`` those of ``held_texts``."""

    texts: list[str]
    rows: Matrix
    held_texts: list[str]
    held: Matrix
    descriptions: list[str]  # one line each: what a page or a function is for

    @classmethod
    def load(cls, cache: Path, *, quick: bool = False) -> Corpus:
        """Read what ``cache`` keeps, or gather and embed it (some minutes).

        Raises:
            RuntimeError: the machine has too little text.
        """
        cache.mkdir(parents=True, exist_ok=True)
        kept = cache / f"passages-{_RECIPE}-{SEED}.json"
        if not kept.exists():
            passages, descriptions = _gather()
            whole = json.dumps({"passages": passages, "descriptions": descriptions})
            kept.with_suffix(".part").write_text(whole, "utf-8")
            kept.with_suffix(".part").rename(kept)
        told = json.loads(kept.read_text("utf-8"))
        count = QUICK_COUNT if quick else COUNT
        held_texts, texts = told["passages"][:HELD], told["passages"][HELD : HELD + count]
        if len(texts) < QUICK_COUNT:
            raise RuntimeError(f"this machine has {len(texts)} passages of text and {QUICK_COUNT} are needed")
        held_texts = [text if at % 2 else first_words(text) for at, text in enumerate(held_texts)]
        embedder = CachedEmbedder(cache)
        try:
            rows, held = embedder.rows(texts), embedder.rows(held_texts, "query")
        finally:
            embedder.close()
        return cls(texts, rows, held_texts, held, told["descriptions"])

    def mix(self, count: int = 200) -> list[Query]:
        """``count`` queries, the same at every call: questions, pasted sentences, keywords, codes, quoted phrases."""
        source = random.Random(SEED)
        makers: dict[str, Callable[[random.Random], str]] = {
            "question": self._question,
            "pasted": lambda chance: first_words(chance.choice(self.texts), 25),
            "keywords": self._keywords,
            "code": self._code,
            "phrase": self._phrase,
        }
        made = [Query(makers[kind](source), kind) for kind, share in _MIX.items() for _ in range(round(share * count))]
        source.shuffle(made)
        return made

    def _question(self, chance: random.Random) -> str:
        described = chance.choice(self.descriptions)
        return chance.choice(_ASKED).format(described[:1].lower() + described[1:])

    def _keywords(self, chance: random.Random) -> str:
        words = sorted(set(re.findall(r"[A-Za-z]{4,}", chance.choice(self.texts))))
        return " ".join(chance.sample(words, min(len(words), chance.randint(2, 4))))

    def _code(self, chance: random.Random) -> str:
        while True:
            codes = sorted(set(_CODE.findall(chance.choice(self.texts))))
            if codes:
                return " ".join(chance.sample(codes, min(len(codes), chance.randint(1, 2))))

    def _phrase(self, chance: random.Random) -> str:
        words = chance.choice(self.texts).split()
        first = chance.randrange(len(words) - 5)
        return '"' + " ".join(words[first : first + chance.randint(3, 5)]).replace('"', "") + '"'


# ---- more of them --------------------------------------------------------------------------------------------------


def jittered(rows: Matrix, count: int, *, sigma: float = SIGMA, seed: int = SEED) -> Matrix:
    """(count, width) unit vectors: number i is ``unit(rows[i % n] + sigma * g)``, g of independent normal values with
    variance 1/width, so that its length is about 1. The first n are the rows themselves."""
    number, width = rows.shape
    out = np.empty((count, width), np.float32)
    for copy, first in enumerate(range(0, count, number)):
        part = rows[: min(number, count - first)]
        chance = np.random.default_rng([seed, copy])
        noise = chance.standard_normal(part.shape, dtype=np.float32) * np.float32(sigma / width**0.5)
        out[first : first + len(part)] = unit(part + noise) if copy else part
    return out


def varied(texts: Sequence[str], count: int, *, seed: int = SEED) -> Iterator[str]:
    """``count`` texts, number i beside vector number i: ``texts[i % n]`` with each word replaced, with probability
    ``CHANGED``, by one drawn as often as it occurs in ``texts``. The first n are the texts themselves."""
    split = [text.split() for text in texts]
    every = [word for words in split for word in words]
    for number in range(count):
        if number < len(texts):
            yield texts[number]
            continue
        chance = random.Random(f"{seed} {number}")
        words = split[number % len(texts)].copy()
        for at in range(len(words)):
            if chance.random() < CHANGED:
                words[at] = every[int(chance.random() * len(every))]
        yield " ".join(words)


def truth(rows: Matrix, queries: Matrix, count: int) -> NDArray[np.int64]:
    """(len(queries), count): the numbers of the rows with the largest cosines, by products over all of them."""
    best = np.full((len(queries), count), -2.0, np.float32)
    numbers = np.zeros((len(queries), count), np.int64)
    for first in range(0, len(rows), 50_000):
        scores = queries @ rows[first : first + 50_000].T
        near = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        both = np.hstack([best, np.take_along_axis(scores, near, 1)])
        which = np.hstack([numbers, near + first])
        order = np.argsort(-both, axis=1, kind="stable")[:, :count]
        best, numbers = np.take_along_axis(both, order, 1), np.take_along_axis(which, order, 1)
    return numbers


def exact(rows: Matrix, queries: Matrix, count: int) -> Matrix:
    """Cosine of the ``count`` nearest rows of each query, best first: (len(queries), count)."""
    best = np.full((len(queries), count), -2.0, np.float32)
    for first in range(0, len(rows), 50_000):
        scores = queries @ rows[first : first + 50_000].T
        joined = np.hstack([best, np.partition(scores, -count, axis=1)[:, -count:]])
        best = -np.sort(-joined, axis=1)[:, :count]
    return best


def recall(found: Sequence[Sequence[int]], rows: Matrix, queries: Matrix, best: Matrix) -> float:
    """Share of the true nearest that was found; rows as near as the last of them (by 1e-6) count as one of them.

    ``found[i]`` are row numbers for query i, ``best`` is :func:`exact` of as many.
    """
    hits = 0
    for query, numbers, scores in zip(queries, found, best, strict=True):
        cosines = rows[list(numbers)[: len(scores)]] @ query
        hits += int((cosines >= scores[-1] - 1e-6).sum())
    return hits / best.size


def first_words(text: str, count: int = 12) -> str:
    return " ".join(text.split()[:count])


# ---- where they come from ------------------------------------------------------------------------------------------


def pages(count: int, *, longest: int, per_family: int, seed: int = SEED) -> list[man_pages.Page]:
    """Up to ``count`` man pages in a seeded order: no two with one description, ``per_family`` of a suite at most, 500
    to ``longest`` characters."""
    found, seen, families = list[man_pages.Page](), set[str](), Counter[str]()
    listed = man_pages.paths()
    random.Random(seed).shuffle(listed)
    for path in listed:
        if len(found) == count:
            break
        family = re.split(r"[-_.:]", path.name, maxsplit=1)[0]
        if families[family] >= per_family:
            continue
        page = man_pages.read(path)
        if page is None or page.description.lower() in seen or not 500 <= len(page.text) <= longest:
            continue
        seen.add(page.description.lower())
        families[family] += 1
        found.append(page)
    return found


def _gather() -> tuple[list[str], list[str]]:
    """All passages in a seeded order, in the shares above as far as each kind reaches; and one-line descriptions."""
    described = pages(4000, longest=2**20, per_family=_PER_FAMILY)
    docstrings = sorted(_docstrings())
    sources: dict[str, Iterator[str]] = {
        "man pages": iter(page.text for page in described),
        "documentation": _documentation(),
        "docstrings": iter(docstrings),
    }
    wanted = COUNT + HELD
    chance, seen = random.Random(SEED), set[str]()
    taken: dict[str, list[str]] = {}
    for kind, texts in sources.items():
        made = [text for whole in texts for text in _pack(whole, chance)]
        fresh = [text for text in made if not (text in seen or seen.add(text))]  # type: ignore[func-returns-value]
        chance.shuffle(fresh)
        taken[kind] = fresh
    chosen = [text for kind, share in _SHARES.items() for text in taken[kind][: round(share * wanted)]]
    spare = [text for kind, share in _SHARES.items() for text in taken[kind][round(share * wanted) :]]
    chance.shuffle(spare)
    chosen += spare[: wanted - len(chosen)]
    chance.shuffle(chosen)
    lines = [page.description for page in described] + [text.partition("\n")[0].rstrip(".") for text in docstrings]
    return chosen, sorted({line for line in lines if 15 <= len(line) <= 120})


def _pack(text: str, chance: random.Random) -> list[str]:
    """Neighbouring paragraphs joined until a drawn length is reached; those that are hardly words are left out."""
    out, current, target = list[str](), "", chance.randint(*_TARGETS)
    for paragraph in re.split(r"\n\s*\n", text):
        current = f"{current}\n\n{paragraph.strip()}".strip()
        if len(current) >= target:
            current = current[: 2 * target]
            if sum(map(str.isalpha, current)) > 0.6 * len(current) and len(current.split()) > 20:
                out.append(current)
            current, target = "", chance.randint(*_TARGETS)
    if len(current) >= _SHORTEST and sum(map(str.isalpha, current)) > 0.6 * len(current) and len(current.split()) > 20:
        out.append(current)
    return chance.sample(out, _PER_SOURCE) if len(out) > _PER_SOURCE else out


def _documentation() -> Iterator[str]:
    folders = [Path("/usr/share/common-licenses"), Path("/usr/share/doc")]
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in _PACKED_PLAIN):
        try:
            if path.is_symlink() or not path.is_file() or path.stat().st_size > 2**20:
                continue
            data = path.read_bytes()
            yield (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError):
            continue


def _docstrings() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        try:
            module = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for node in ast.walk(module):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                told = ast.get_docstring(node, clean=False)
                if told and len(told) >= _SHORTEST:
                    yield inspect.cleandoc(told)
