"""Deterministic requests: neighbours, cancels, parking and the number of threads change not a bit of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_runtime.engine.llama import Llama, binding
from tests.edge_runtime.engine.generators import Answer, Driver, words

Drive = Callable[..., Driver]


def _ask(driver: Driver, prompt: str, count: int = 12) -> Answer:
    driver.submit("d", prompt, count, deterministic=True, logprobs=1)
    return driver.drain()["d"]


def _same(one: Answer, other: Answer) -> bool:
    return one.ids == other.ids and one.logprobs == other.logprobs and one.text == other.text


@pytest.mark.parametrize("length", [30, 75])
def test_six_neighbours_change_no_bit(spacious: Llama, drive: Drive, length: int) -> None:
    driver, prompt = drive(spacious), words(spacious, length) + ". The"
    alone = _ask(driver, prompt)
    assert len(alone.ids) == 12
    for number in range(6):
        driver.submit(f"{number}", words(spacious, 20 + number, seed=number), 30)
    driver.until(lambda: driver.generator.stats().running == 6)
    assert _same(_ask(driver, prompt), alone)


def test_neighbours_that_come_go_and_are_parked_change_no_bit(cramped: Llama, drive: Drive) -> None:
    driver, prompt = drive(cramped), words(cramped, 40) + ". The"
    alone = _ask(driver, prompt, 20)
    driver.submit("d", prompt, 20, deterministic=True, logprobs=1)
    for number in range(3):
        driver.submit(f"{number}", words(cramped, 70, seed=number), 110, priority="batch")
    driver.until(lambda: len(driver.answers["d"].tokens) > 3)
    driver.submit("now", words(cramped, 90, seed=8), 3, priority="realtime")
    driver.until(lambda: len(driver.answers["d"].tokens) > 8)
    driver.cancel("1")
    answers = driver.drain()
    assert sum(answers[f"{number}"].done.parked for number in range(3)) > 0
    assert _same(answers["d"], alone)


def test_another_number_of_threads_changes_no_bit(spacious: Llama, drive: Drive) -> None:
    prompt = words(spacious, 50) + ". The"
    one = _ask(drive(spacious, threads=1), prompt)
    two = _ask(drive(spacious, threads=2), prompt)
    spacious.use_threads(1)
    assert _same(one, two)


def test_what_was_asked_before_changes_no_bit(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 40) + ". The"
    alone = _ask(driver, prompt)
    _ask(driver, words(spacious, 90, seed=3))
    assert _same(_ask(driver, prompt), alone)


def test_several_deterministic_requests_are_answered_one_after_the_other_and_alike(
    spacious: Llama, drive: Drive
) -> None:
    driver, prompt = drive(spacious), words(spacious, 30) + ". The"
    for number in range(3):
        driver.submit(f"{number}", prompt, 8, deterministic=True, logprobs=1)
    answers = driver.drain()
    assert _same(answers["0"], answers["1"])
    assert _same(answers["0"], answers["2"])


def test_a_deterministic_text_is_taken_up_where_it_was_left(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 30) + ". The"
    whole = _ask(driver, prompt)
    for count in (0, 1, 5, 11, 12):
        driver.submit("r", prompt, 12, deterministic=True, resume=whole.ids[:count])
        assert whole.ids[:count] + driver.drain()["r"].ids == whole.ids


def test_a_deterministic_request_that_is_cancelled_leaves_the_lane_to_the_next(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 60)
    for name in ("first", "second", "third"):
        driver.submit(name, prompt, 5, deterministic=True)
    driver.step()
    driver.cancel("first")
    driver.cancel("third")
    answers = driver.drain()
    assert [answers[name].done.reason for name in ("first", "second", "third")] == ["cancelled", "length", "cancelled"]
    assert not driver.generator.busy


def test_neighbours_of_a_long_deterministic_prompt_go_on_writing(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    driver.submit("d", words(spacious, 300), 2, deterministic=True)
    driver.submit("n", words(spacious, 10), 8)
    driver.until(lambda: driver.answers["n"].end is not None)
    assert driver.answers["d"].end is None
    driver.drain()


def test_a_purge_empties_the_cells_of_the_lane_too(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    driver.submit("d", words(spacious, 60), 5, deterministic=True)
    driver.until(lambda: bool(driver.answers["d"].tokens))
    driver.generator.purge()
    assert driver.drain()["d"].done.completion_tokens == 5
    context = driver.generator._lane._context
    assert context is not None
    assert binding().llama_memory_seq_pos_max(context.memory, 0) == -1
    assert binding().llama_memory_seq_pos_max(spacious.memory, 0) == -1


def test_the_cells_of_the_lane_are_emptied_when_its_request_ends_though_others_write(
    spacious: Llama, drive: Drive
) -> None:
    driver = drive(spacious)
    driver.submit("d", words(spacious, 60), 5, deterministic=True)
    driver.until(lambda: bool(driver.answers["d"].tokens))
    driver.submit("n", words(spacious, 10), 60)
    driver.generator.purge()
    driver.until(lambda: driver.answers["d"].end is not None)
    assert driver.answers["n"].end is None
    context = driver.generator._lane._context
    assert context is not None
    assert binding().llama_memory_seq_pos_max(context.memory, 0) == -1
    driver.drain()


def test_a_request_of_a_higher_class_is_the_next_in_the_lane(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    for name, priority in (("first", "batch"), ("second", "batch"), ("third", "interactive"), ("fourth", "realtime")):
        driver.submit(name, words(spacious, 20), 2, deterministic=True, priority=priority)
        if name == "first":
            driver.step()
    ended: list[str] = []
    while driver.generator.busy:
        driver.step()
        ended += [name for name, answer in driver.answers.items() if answer.end is not None and name not in ended]
    assert ended == ["first", "fourth", "third", "second"]
