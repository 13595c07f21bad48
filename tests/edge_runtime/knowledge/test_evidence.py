"""Quotes are verbatim and short; what speaks against an answer lowers the confidence."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.knowledge.evidence import QUOTE_CHARS, Passage, Unit, weigh
from edge_runtime.knowledge.words import understand

WIDTH = 8


def direction(*values: float) -> np.ndarray:
    vector = np.zeros(WIDTH, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def passage(
    sentences: list[str], vectors: list[np.ndarray], *, dense: float = 0.6, items: bool = False, name: str = "manual.md"
) -> Passage:
    text, units, at = " ".join(sentences), [], 0
    for sentence in sentences:
        units.append(Unit(at, at + len(sentence), sentence, items))
        at += len(sentence) + 1
    return Passage(
        document_id="d", document=name, heading="Alarms", page=None, start=0, text=text, units=tuple(units),
        vectors=np.stack(vectors), dense=dense, lexical=0.5,
    )  # fmt: skip


QUESTION = direction(1.0)
NEAR = direction(1.0, 0.8)
FAR = direction(0.1, 1.0, 1.0)


def test_the_sentence_that_holds_the_words_and_the_meaning_is_quoted_first() -> None:
    found = passage(["The pump is blue.", "Alarm E17 means low suction pressure."], [FAR, NEAR])
    evidence = weigh(understand("What does alarm E17 mean?"), QUESTION, [found])
    assert "E17" in evidence.quotes[0].text


def test_a_quote_grows_by_its_neighbours_but_not_past_its_limit() -> None:
    sentences = [f"Sentence number {n} fills about sixty characters of this text here." for n in range(12)]
    evidence = weigh(understand("Which sentence?"), QUESTION, [passage(sentences, [NEAR] * 12)])
    assert 200 < len(evidence.quotes[0].text) <= QUOTE_CHARS


def test_a_table_row_is_quoted_alone() -> None:
    rows = ["| E16 | High temperature |", "| E17 | Low suction pressure |", "| E18 | Leak |"]
    evidence = weigh(understand("What does E17 mean?"), QUESTION, [passage(rows, [FAR, NEAR, FAR], items=True)])
    assert evidence.quotes[0].text == rows[1]


def test_a_subject_that_is_not_there_gives_no_confidence() -> None:
    found = passage(["Alarm E17 means low suction pressure."], [FAR], dense=0.1)
    assert weigh(understand("who won the cup"), QUESTION, [found]).confidence < 0.05


def test_nothing_found_is_no_evidence() -> None:
    evidence = weigh(understand("What?"), QUESTION, [])
    assert evidence.quotes == ()
    assert evidence.confidence == 0.0


def test_a_code_that_the_passage_lacks_costs_the_answer() -> None:
    found = passage(["Alarm E17 means low suction pressure."], [NEAR])
    right = weigh(understand("What does alarm E17 mean?"), QUESTION, [found]).confidence
    wrong = weigh(understand("What does alarm E99 mean?"), QUESTION, [found]).confidence
    assert right > 0.5 > wrong


def test_a_neighbour_that_names_another_thing_is_not_quoted_for_it() -> None:
    lamps = ["The light of lamp L1 is red.", "The light of lamp L6 is white.", "The light of lamp L9 is blue."]
    found = passage(lamps, [NEAR] * 3)
    asked = understand("What colour is the light of lamp L6?")
    evidence = weigh(asked, QUESTION, [found])
    assert found.units[evidence.quotes[0].core].text == lamps[1]
    absent = weigh(understand("What colour is the light of lamp L7?"), QUESTION, [found])
    assert absent.confidence < 0.5 < evidence.confidence


def test_a_year_that_the_passage_lacks_lowers_the_confidence() -> None:
    found = passage(["The duchy was founded in 911 by treaty."], [NEAR])
    right = weigh(understand("Was the duchy founded in 911?"), QUESTION, [found]).confidence
    wrong = weigh(understand("Was the duchy founded in 1066?"), QUESTION, [found]).confidence
    assert wrong < right


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=400), min_size=1, max_size=8),
    st.text(max_size=100),
    st.booleans(),
)
def test_whatever_the_documents_hold_quotes_are_verbatim_and_the_confidence_is_a_probability(
    sentences: list[str], question: str, items: bool
) -> None:
    found = passage(sentences, [NEAR if n % 2 else FAR for n in range(len(sentences))], items=items)
    evidence = weigh(understand(question), QUESTION, [found, found])
    assert 0.0 <= evidence.confidence <= 1.0
    for quote in evidence.quotes:
        assert quote.text == found.text[quote.start : quote.end]
        assert quote.first <= quote.core <= quote.last
        if quote.first != quote.last:
            assert len(quote.text) <= QUOTE_CHARS
