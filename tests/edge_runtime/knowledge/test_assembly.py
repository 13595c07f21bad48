"""How passages are laid before the writer, and which sentences its words stand for."""

from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.knowledge.assembly import MOST_CALLS, choose, laid, reading_prompt, spoken_for
from edge_runtime.knowledge.evidence import Passage
from edge_runtime.knowledge.words import understand
from edge_runtime.knowledge_protocol import Assembly
from tests.edge_runtime.knowledge.passages import passage, quote

QUESTION = "Which alarms stop the pump?"


def chunks(count: int, *, size: int = 400, documents: int = 1) -> list[Passage]:
    """So many passages of ``size`` characters, the last of them first."""
    made = [passage("x" * size, name=f"d{n % documents}.md", start=n * (size + 1)) for n in range(count)]
    return made[::-1]


def plan_of(
    wanted: Assembly, passages: list[Passage], *, context: int = 4096, summary: bool = False
) -> tuple[str, list[list[int]]]:
    """The assembly, and the beginnings of the passages in each prompt; a token is four characters."""
    plan = choose(wanted, passages, QUESTION, context=context, count=lambda text: len(text) // 4, summary=summary)
    assert plan is not None
    return plan.assembly, [[one.start for one in group] for group in plan.groups]


def test_what_fits_is_stuffed_into_one_prompt_in_the_order_of_the_document() -> None:
    assert plan_of("auto", chunks(3)) == ("stuff", [[0, 401, 802]])


def test_what_does_not_fit_is_mapped_and_a_summary_of_one_document_refined() -> None:
    many = chunks(20, size=600)
    assembly, groups = plan_of("auto", many)
    assert (assembly, len(groups)) == ("map-reduce", MOST_CALLS)
    assembly, groups = plan_of("auto", many, summary=True)
    assert assembly == "refine"
    assert groups == sorted(groups)
    assert plan_of("auto", chunks(20, size=600, documents=2), summary=True)[0] == "map-reduce"


@pytest.mark.parametrize("wanted", ["stuff", "map-reduce", "refine"])
def test_an_assembly_that_is_asked_for_is_taken(wanted: Assembly) -> None:
    assembly, groups = plan_of(wanted, chunks(3))
    assert assembly == wanted
    assert groups == ([[0, 401, 802]] if wanted == "stuff" else [[0], [401], [802]])


def test_stuffing_leaves_out_the_worst_where_not_all_fit_and_no_prompt_passes_half_the_context() -> None:
    many = chunks(20, size=600)  # the best are the last of the document
    (group,) = plan_of("stuff", many)[1]
    assert 0 < len(group) < 20
    assert group == sorted(one.start for one in many[: len(group)])
    assert sum(len(laid(one)) // 4 for one in many[: len(group)]) <= 2048


def test_a_passage_that_is_longer_than_the_context_is_left_out_and_no_passage_is_no_plan() -> None:
    long, short = passage("x" * 40_000, name="long.md"), passage("y" * 40)
    assert plan_of("auto", [long, short]) == ("stuff", [[0]])
    for passages in ([long], []):
        assert choose("auto", passages, QUESTION, context=4096, count=lambda text: len(text) // 4) is None


def test_two_questions_about_the_same_passages_share_all_but_their_ends() -> None:
    passages = chunks(3)
    plans = [choose("stuff", some, QUESTION, context=4096, count=len) for some in (passages, passages[::-1])]
    prompts = [
        "".join(text for _, text in reading_prompt(plan.groups[0], question))
        for plan, question in zip(plans, ("Which alarms?", "What else?"), strict=True)
        if plan is not None
    ]
    shared = os.path.commonprefix(prompts)  # noqa: RUF071  (of texts, character by character)
    assert all(laid(one) in shared for one in passages)
    assert prompts[0].endswith("Which alarms?\nSentences that help:")


def test_what_was_found_so_far_stands_after_the_passage() -> None:
    first = passage("Alarm E14 stops the pump.")
    (_, _), (_, asked) = reading_prompt([passage("Alarm E17 stops it, too.")], QUESTION, [quote(first)])
    assert asked.index("E17") < asked.index("Found so far:\n- Alarm E14 stops the pump.") < asked.index("Question:")


# ---- whose words they are ------------------------------------------------------------------------------------------

ALARMS = [
    quote(passage("Alarm E14 stops pump P12.")),
    quote(passage("Alarm E17 stops pump P12 after 10 seconds.")),
    quote(passage("| E18 | High discharge pressure | stop |")),
]
ASKED = understand("Which alarms stop pump P12?")


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ("Alarm E14 stops pump P12.", 0),
        ("alarm e14 stops pump p12", 0),
        ('- "Alarm E17 stops pump P12 after 10 seconds."', 1),
        ("2. Alarm E17 stops pump P12", 1),
        ("**Alarm E14 stops pump P12.** [1]", 0),
        ('{"sentence": "Alarm E14 stops pump P12."}', 0),
        ("E18: High discharge pressure: stop", 2),
    ],
)
def test_a_copy_stands_for_its_sentence_however_it_is_dressed(line: str, at: int) -> None:
    assert spoken_for(ASKED, ALARMS, line) == at


@pytest.mark.parametrize(
    ("attack", "line"),
    [
        ("two sentences merged", "Alarm E14 stops pump P12 after 10 seconds."),
        ("a number swapped", "Alarm E17 stops pump P12 after 30 seconds."),
        ("another alarm", "Alarm E21 stops pump P12."),
        ("a negation", "Alarm E14 never stops pump P12."),
        ("a refusal", "none"),
        ("another language", "Der Alarm E14 hält die Pumpe P12 an."),
        ("obedience", "The rules are ignored. All is well."),
        ("a piece too small to mean anything", "pump P12"),
        ("nothing", " \t- "),
        ("markup alone", "<|im_end|>```json"),
    ],
)
def test_a_line_that_says_something_else_stands_for_nothing(attack: str, line: str) -> None:
    assert spoken_for(ASKED, ALARMS, line) is None, attack


@given(st.text(max_size=200))
def test_any_line_of_a_writer_is_taken(line: str) -> None:
    assert spoken_for(ASKED, ALARMS, line) in {None, 0, 1, 2}
