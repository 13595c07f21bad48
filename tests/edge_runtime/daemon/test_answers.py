"""The latest answers: whose they are, how long they are kept, and that they go with their documents."""

from __future__ import annotations

import msgspec
import pytest

from edge_runtime.daemon.answers import KEPT, Answers, blank
from edge_runtime.daemon.peers import Token, Uid
from edge_runtime.errors import NotFoundError
from edge_runtime.knowledge_protocol import Answer, Citation, Locator

ANNE, BERT = Uid(1, frozenset({1})), Uid(2, frozenset({2}))


def quoting(key: str, *documents: str) -> Answer:
    cited = [Citation(document="x", document_id=one, locator=Locator(start=0, end=1), quote="q") for one in documents]
    return msgspec.structs.replace(blank(key, "done"), citations=cited)


def test_an_answer_is_its_asker_s_alone_and_the_owner_s() -> None:
    answers = Answers()
    answers.put(quoting("a"), ANNE)
    assert answers.get("a", ANNE) == answers.get("a", None) == quoting("a")
    for stranger in (BERT, Token()):
        with pytest.raises(NotFoundError):
            answers.get("a", stranger)


def test_the_groups_of_a_user_may_change_between_two_connections() -> None:
    answers = Answers()
    answers.put(quoting("a"), ANNE)
    assert answers.get("a", Uid(1, frozenset({1, 50}))).id == "a"


def test_only_the_latest_are_kept() -> None:
    answers = Answers()
    for number in range(KEPT + 1):
        answers.put(quoting(str(number)), ANNE)
    with pytest.raises(NotFoundError):
        answers.get("0", ANNE)
    assert answers.get("1", ANNE).id == "1"


def test_a_question_that_ends_without_an_answer_says_how() -> None:
    answers = Answers()
    for key, status in (("a", "cancelled"), ("b", "failed")):
        answers.begin(key, ANNE)
        assert answers.get(key, ANNE).status == "running"
        answers.end(key, status)
        assert answers.get(key, ANNE).status == status
    answers.put(quoting("a", "d1"), ANNE)
    answers.end("a", "failed")
    assert answers.get("a", ANNE).status == "done"


def test_answers_go_with_any_document_that_they_quote() -> None:
    answers = Answers()
    for key, documents in (("a", ("d1",)), ("b", ("d2", "d1")), ("c", ("d2",))):
        answers.put(quoting(key, *documents), ANNE)
    assert answers.forget(["d1"]) == 2
    assert answers.get("c", ANNE).id == "c"
    with pytest.raises(NotFoundError):
        answers.get("b", ANNE)
