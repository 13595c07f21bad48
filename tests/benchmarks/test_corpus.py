"""The recipes that make many vectors and texts of few, and the benchmark's own search for the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import corpus
from benchmarks.corpus import Corpus
from edge_runtime.embedding.windows import unit
from edge_runtime.knowledge.records import Matrix

TEXTS = [
    f"alpha{number} beta{number} gamma delta --flag{'x' * number} EINVAL_{number} epsilon zeta" for number in range(9)
]


def vectors(count: int, width: int = 16, seed: int = 1) -> Matrix:
    return unit(np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32))


def small() -> Corpus:
    rows = vectors(len(TEXTS))
    return Corpus(TEXTS, rows, TEXTS[:2], rows[:2], ["Tighten the gland bolts", "List every alarm"])


def test_the_first_vectors_are_the_rows_themselves_and_the_rest_near_copies() -> None:
    rows = vectors(40, width=384)
    made = corpus.jittered(rows, 100)
    assert np.array_equal(made[:40], rows)
    assert np.allclose(np.linalg.norm(made, axis=1), 1.0, atol=1e-5)
    cosines = (made[40:80] * rows).sum(axis=1)
    assert cosines.mean() == pytest.approx(1 / (1 + corpus.SIGMA**2) ** 0.5, abs=0.02)
    assert not np.array_equal(made[40:60], made[80:100])
    assert np.array_equal(made, corpus.jittered(rows, 100))


def test_fewer_vectors_than_rows_are_the_first_of_them() -> None:
    rows = vectors(10)
    assert np.array_equal(corpus.jittered(rows, 7), rows[:7])


def test_varied_texts_begin_with_the_texts_and_keep_their_length_and_most_words() -> None:
    made = list(corpus.varied(TEXTS, 900))
    assert made[: len(TEXTS)] == TEXTS
    assert made == list(corpus.varied(TEXTS, 900))
    known = {word for text in TEXTS for word in text.split()}
    changed = 0
    for number, text in enumerate(made[len(TEXTS) :], len(TEXTS)):
        before, after = TEXTS[number % len(TEXTS)].split(), text.split()
        assert len(before) == len(after)
        assert set(after) <= known
        changed += sum(one != other for one, other in zip(before, after, strict=True))
    assert 0.1 < changed / sum(len(text.split()) for text in made[len(TEXTS) :]) < corpus.CHANGED + 0.02


def test_the_mix_has_every_kind_in_its_share_and_is_the_same_at_every_call() -> None:
    made = small().mix(100)
    assert made == small().mix(100)
    counts = {kind: sum(query.kind == kind for query in made) for kind in {query.kind for query in made}}
    assert counts == {"question": 35, "pasted": 10, "keywords": 25, "code": 15, "phrase": 15}
    assert all(query.text.strip() for query in made)
    assert all(query.text.startswith('"') and query.text.endswith('"') for query in made if query.kind == "phrase")


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 2**16))
def test_the_truth_is_what_a_full_sort_finds(count: int, wanted: int, seed: int) -> None:
    wanted = min(wanted, count)
    rows, queries = vectors(count, seed=seed), vectors(3, seed=seed + 1)
    found = corpus.truth(rows, queries, wanted)
    scores = queries @ rows.T
    best = -np.sort(-scores, axis=1)[:, :wanted]
    assert np.allclose(np.take_along_axis(scores, found, 1), best, atol=1e-6)
