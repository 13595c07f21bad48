"""How much a question asks for is told from its words, and a doubtful one asks for one thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.knowledge.extent import MOST_PARTS, measure


@pytest.mark.parametrize(
    "question",
    [
        "What does alarm E17 mean?",
        "Which part is on shelf B3?",
        "Which causes the alarm?",
        "What protects the rising main?",
        "When and how was it built?",
        "Who was the duke in the battle of Hastings?",
        "How do I start pump P12?",
        "What happened on the 1st and the 3rd?",
        "",
        "???",
    ],
)
def test_a_question_for_one_thing_stays_whole(question: str) -> None:
    extent = measure(question)
    assert (extent.kind, extent.whole, extent.parts) == ("one", question, ())


@pytest.mark.parametrize(
    ("question", "whole"),
    [
        ("Which alarms call the operator?", "Which alarms call the operator?"),
        ("What are the usual causes of alarm E17?", "What are the usual causes of alarm E17?"),
        ("What conditions must be met?", "What conditions must be met?"),
        ("Please list all alarms of pump P12.", "alarms of pump P12"),
        ("Give me a list of the options of tar", "options of tar"),
        ("What happened to valve V3 in 2026?", "What happened to valve V3 in 2026?"),
    ],
)
def test_a_question_for_many_is_a_list_without_the_words_that_only_say_so(question: str, whole: str) -> None:
    extent = measure(question)
    assert (extent.kind, extent.whole) == ("list", whole)


@pytest.mark.parametrize(
    ("question", "whole"),
    [
        ("Summarise the maintenance of valve V3", "the maintenance of valve V3"),
        ("Could you please give me a short summary of the log?", "the log"),
        ("Tell me everything about the spare rotor.", "the spare rotor"),
        ("What does the manual say about frost?", "frost"),
    ],
)
def test_a_summary_is_looked_for_by_its_subject(question: str, whole: str) -> None:
    extent = measure(question)
    assert (extent.kind, extent.whole) == ("summary", whole)


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("Compare the flow of P11 and P13", ("What is the flow of P11?", "What is the flow of P13?")),
        ("What is the difference between tar and cpio?", ("What is tar?", "What is cpio?")),
        ("How does P12 differ from P13?", ("What is P12?", "What is P13?")),
        (
            "Compare the drive-end bearing and the non-drive-end bearing of P12.",
            ("What is the drive-end bearing of P12?", "What is the non-drive-end bearing of P12?"),
        ),
        (
            "Compare the torque of the gland bolts, the coupling bolts and the casing bolts",
            (
                "What is the torque of the gland bolts?",
                "What is the torque of the coupling bolts?",
                "What is the torque of the casing bolts?",
            ),
        ),
    ],
)
def test_a_comparison_asks_for_each_of_its_things(question: str, parts: tuple[str, ...]) -> None:
    extent = measure(question)
    assert (extent.kind, extent.parts, extent.compares) == ("parts", parts, True)


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("What do alarms E17 and E21 mean?", ("What do alarms E17 mean?", "What do alarms E21 mean?")),
        ("Where are pump P12 and valve V3?", ("Where are pump P12?", "Where are valve V3?")),
        (
            "What torque do the gland bolts and the coupling bolts of P12 need?",
            ("What torque do the gland bolts of P12 need?", "What torque do the coupling bolts of P12 need?"),
        ),
    ],
)
def test_several_things_of_one_question_are_asked_for_one_by_one(question: str, parts: tuple[str, ...]) -> None:
    extent = measure(question)
    assert (extent.parts, extent.compares, extent.joint) == (parts, False, True)


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        (
            "What does alarm E17 mean, and how do I clear it?",
            ("What does alarm E17 mean", "how do I clear alarm E17?"),
        ),
        ("What does E17 mean? How do I clear it?", ("What does E17 mean", "How do I clear E17?")),
        ("Where is the fan and when is it cleaned?", ("Where is the fan", "when is it cleaned?")),
    ],
)
def test_two_questions_in_one_are_parted_and_it_is_put_in_its_place(question: str, parts: tuple[str, ...]) -> None:
    extent = measure(question)
    assert (extent.kind, extent.parts, extent.joint) == ("parts", parts, False)


def test_a_run_of_too_many_codes_is_asked_for_as_a_whole() -> None:
    assert measure("What do E11, E12, E13, E14, E15 and E16 mean?").parts == ()


@given(st.text(max_size=400))
def test_any_text_is_measured(question: str) -> None:
    extent = measure(question)
    assert (extent.kind == "parts") == bool(extent.parts)
    assert len(extent.parts) <= MOST_PARTS
    assert all(extent.parts)


@given(
    st.lists(
        st.sampled_from(["compare ", "E17", "P12", " and ", ", ", " of ", "list all ", "what", "?", "s "]), max_size=60
    )
)
def test_words_that_mean_something_in_any_order_are_measured(words: list[str]) -> None:
    extent = measure("".join(words))
    assert len(extent.parts) <= MOST_PARTS


@pytest.mark.parametrize(
    "piece", ["compare a and ", "E1, ", "which xs ", "the a b and ", "? what ", "difference between "]
)
def test_a_long_question_of_one_piece_again_and_again_is_measured_without_running_away(piece: str) -> None:
    assert len(measure(piece * (8000 // len(piece))).parts) <= MOST_PARTS
