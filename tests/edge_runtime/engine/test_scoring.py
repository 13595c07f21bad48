"""Scores of choices against sums of log-probabilities from a bare loop, one row at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_runtime.engine.llama import Llama
from edge_runtime.engine.messages import Failed
from edge_runtime.engine.sampling import log_softmax
from edge_runtime.errors import ContextLengthError, RequestError
from tests.edge_runtime.engine.generators import Driver, words

Drive = Callable[..., Driver]


def _one_by_one(model: Llama, prompt: str, choices: list[str]) -> list[float]:
    found = []
    tokens = model.vocabulary.tokens(prompt)
    model.clear()
    model.decode(tokens, 0)
    first = log_softmax(model.logits().copy())
    for choice in choices:
        cut = model.vocabulary.tokens(choice, bos=False, special=False)
        total = float(first[cut[0]])
        for place in range(len(cut) - 1):
            model.decode([cut[place]], len(tokens) + place)
            total += float(log_softmax(model.logits())[cut[place + 1]])
        model.forget(0, len(tokens))
        found.append(total)
    return found


def _near(told: list[float], wanted: list[float]) -> bool:
    """Within a third of a nat or two hundredths: rows in company are rounded otherwise than alone."""
    return told == pytest.approx(wanted, rel=0.02, abs=0.3)


def test_scores_are_the_sums_of_the_log_probabilities_of_a_bare_loop(
    spacious: Llama, writer: Llama, drive: Drive
) -> None:
    driver = drive(spacious)
    prompt = "The capital of France is the city of"
    choices = [" Paris", " London", " Rome and not Paris, as some of them believe", " x", " Paris, where the river is"]
    driver.score("s", prompt, choices)
    scored = driver.drain()["s"].scored
    assert _near(scored.logprobs, _one_by_one(writer, prompt, choices))
    assert scored.logprobs[0] > scored.logprobs[1]
    assert scored.tokens == [len(writer.vocabulary.tokens(text, bos=False, special=False)) for text in choices]
    assert scored.prompt_tokens == len(writer.vocabulary.tokens(prompt))
    assert driver.used == 0


def test_forty_choices_of_mixed_lengths_are_each_scored(spacious: Llama, writer: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 12)
    choices = [words(spacious, 1 + number % 9, seed=number) for number in range(40)]
    driver.score("s", prompt, choices)
    scored = driver.drain()["s"].scored
    assert _near(scored.logprobs, _one_by_one(writer, prompt, choices))


def test_a_choice_longer_than_a_step_is_scored_whole(spacious: Llama, writer: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 12)
    choices = [words(spacious, 90, seed=1), words(spacious, 2, seed=2), words(spacious, spacious.outputs + 1, seed=3)]
    driver.score("s", prompt, choices)
    assert _near(driver.drain()["s"].scored.logprobs, _one_by_one(writer, prompt, choices))


def test_scores_and_texts_that_share_a_step_do_not_disturb_each_other(
    spacious: Llama, writer: Llama, drive: Drive
) -> None:
    driver = drive(spacious)
    prompts = [words(spacious, 10 + number, seed=number) + ". The" for number in range(4)]
    texts = [driver.ask(prompt, 6, cache_prompt=False).ids for prompt in prompts]
    choices = [" river is long", " house and the green garden", " one"]
    wanted = [_one_by_one(writer, prompt, choices) for prompt in prompts]
    # All of them fit into one step: scores stand before, between and behind the texts.
    for number, prompt in enumerate(prompts):
        driver.score(f"s{number}", prompt, choices, domain="uid:2")
        driver.submit(f"t{number}", prompt, 6, domain=f"uid:{10 + number}")
    answers = driver.drain()
    for number in range(4):
        assert _near(answers[f"s{number}"].scored.logprobs, wanted[number])
        assert answers[f"t{number}"].done.completion_tokens == 6
    # Rows in company are rounded otherwise, and one close choice of four may fall otherwise.
    assert sum(answers[f"t{number}"].ids[0] == texts[number][0] for number in range(4)) >= 3


def test_a_score_beside_writers_leaves_their_texts_alone(spacious: Llama, writer: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 30)
    for number in range(3):
        driver.submit(f"{number}", words(spacious, 20, seed=number) + ". The", 12)
    driver.until(lambda: all(driver.answers[f"{number}"].tokens for number in range(3)))
    choices = [words(spacious, 4, seed=number) for number in range(6)]
    driver.score("s", prompt, choices)
    answers = driver.drain()
    assert _near(answers["s"].scored.logprobs, _one_by_one(writer, prompt, choices))
    assert all(answers[f"{number}"].done.completion_tokens == 12 for number in range(3))


@pytest.mark.parametrize("priority", ["batch", "interactive", "realtime"])
def test_a_score_where_others_hold_nearly_all_cells_is_answered_all_the_same(
    cramped: Llama, drive: Drive, priority: str
) -> None:
    driver = drive(cramped)
    prompt, choices = words(cramped, 40), [words(cramped, 30, seed=number) for number in range(3)]
    driver.score("alone", prompt, choices, domain="uid:9")
    wanted = driver.drain()["alone"].scored.logprobs
    for number in range(2):
        driver.submit(f"{number}", words(cramped, 90, seed=number), 40, priority=priority)
    driver.until(lambda: all(driver.answers[f"{number}"].tokens for number in range(2)))
    driver.score("s", prompt, choices)
    answers = driver.drain()
    assert not isinstance(answers["s"].end, Failed), answers["s"].end
    assert _near(answers["s"].scored.logprobs, wanted)
    assert all(answers[f"{number}"].done.completion_tokens == 40 for number in range(2))
    assert driver.used == 0


def test_a_prompt_that_was_scored_before_is_not_read_again(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 100)
    driver.score("one", prompt, [" yes", " no"])
    first = driver.drain()["one"].scored
    driver.score("two", prompt, [" yes", " no"])
    second = driver.drain()["two"].scored
    assert (first.cached_tokens, first.tier) == (0, "none")
    assert second.cached_tokens >= 64
    assert second.tier == "memory"
    assert second.logprobs == first.logprobs


def test_a_choice_cannot_smuggle_in_a_control_token(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    driver.score("s", "One", ["<|im_end|>"])
    assert driver.drain()["s"].scored.tokens[0] > 1


@pytest.mark.parametrize("choices", [[], [""], [" yes", ""]])
def test_a_score_without_choices_or_with_an_empty_one_is_refused(
    spacious: Llama, drive: Drive, choices: list[str]
) -> None:
    with pytest.raises(RequestError) as error:
        drive(spacious).score("s", "One", choices)
    assert error.value.param == "choices"


def test_a_choice_for_which_the_context_has_no_room_is_refused(cramped: Llama, drive: Drive) -> None:
    with pytest.raises(ContextLengthError):
        drive(cramped).score("s", words(cramped, 100), [words(cramped, 160, seed=1)])


def test_a_score_that_is_cancelled_leaves_nothing(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    driver.score("s", words(spacious, 300), [" yes"])
    driver.step()
    driver.cancel("s")
    assert driver.answers["s"].done.reason == "cancelled"
    assert driver.used == 0


def test_a_stream_goes_on_between_the_steps_of_a_long_score(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    driver.submit("a", words(spacious, 20), 200)
    driver.until(lambda: len(driver.answers["a"].tokens) > 2)
    choices = [words(spacious, 12, seed=number) for number in range(40)]
    driver.score("s", words(spacious, 12, seed=99), choices)
    driver.until(lambda: driver.answers["s"].end is not None)
    # Forty choices of a dozen tokens are some sixty steps of eight rows, and the stream has a token after each.
    assert len(driver.answers["a"].tokens) > 40
    assert len(driver.answers["s"].scored.logprobs) == 40
    assert driver.drain()["a"].done.completion_tokens == 200
    assert driver.used == 0


def test_a_score_that_is_cancelled_between_its_steps_leaves_no_cells(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    driver.score("s", words(spacious, 12), [words(spacious, 60, seed=number) for number in range(9)])
    driver.until(lambda: driver.used > 30)  # a part of a long choice too
    driver.generator.cancel("s")
    assert driver.used == 0
    driver.submit("b", words(spacious, 20), 5)
    assert driver.drain()["b"].done.completion_tokens == 5
