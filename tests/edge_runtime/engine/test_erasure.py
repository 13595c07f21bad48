"""A purge beside running requests: they go on unchanged, all else is overwritten at once, and they are in the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_runtime.engine.llama import Llama
from tests.edge_runtime.engine.generators import Driver, words

Drive = Callable[..., Driver]


def _begin(driver: Driver, model: Llama) -> None:
    """Two streams that share most of their prompts, and what an earlier one left."""
    driver.ask(words(model, 80, seed=5), 2)
    driver.submit("one", words(model, 120) + ". The", 30)
    driver.until(lambda: len(driver.answers["one"].tokens) > 2)
    driver.submit("two", words(model, 100) + " And", 30)
    driver.until(lambda: len(driver.answers["two"].tokens) > 2)


def test_streams_write_the_same_through_a_purge_and_keep_what_they_share(spacious: Llama, drive: Drive) -> None:
    plain = drive(spacious)
    _begin(plain, spacious)
    expected = {name: answer.text for name, answer in plain.drain().items()}
    driver = drive(spacious)
    _begin(driver, spacious)
    held = driver.used
    driver.generator.purge()
    driver.step()
    assert not driver.generator._erasure._stale
    assert held <= driver.used <= held + 2
    assert driver.answers["two"].end is None
    assert {name: answer.text for name, answer in driver.drain().items()} == expected
    assert driver.used == 0


def test_a_purge_comes_to_its_end_though_others_never_stop_coming(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    driver.submit("old", words(spacious, 60), 6)
    driver.until(lambda: bool(driver.answers["old"].tokens))
    driver.generator.purge()
    driver.submit("new", words(spacious, 60, seed=1), 40)
    driver.until(lambda: driver.answers["old"].end is not None)
    assert driver.generator._erasure.busy
    driver.step()
    assert not driver.generator._erasure.busy
    assert driver.answers["new"].end is None
    assert driver.drain()["new"].done.completion_tokens == 40


def test_without_host_memory_the_cells_wait_for_the_streams_to_end(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious, cache=0)
    _begin(driver, spacious)
    driver.generator.purge()
    driver.step()
    assert driver.generator._erasure._stale
    driver.drain()
    assert not driver.generator._erasure.busy


def test_a_score_is_the_same_through_a_purge(spacious: Llama, drive: Drive) -> None:
    choices = [words(spacious, 40, seed=seed) for seed in range(20)]

    def score(*, purged: bool) -> list[float]:
        driver = drive(spacious)
        driver.score("s", words(spacious, 70), choices)
        driver.submit("w", words(spacious, 30, seed=3), 40, speculate=False)
        driver.until(lambda: bool(driver.generator._scores))
        driver.step()
        if purged:
            driver.generator.purge()
        return driver.drain()["s"].scored.logprobs

    # How many rows a step has depends on how long steps take, and the last bits of a sum on that.
    assert score(purged=True) == pytest.approx(score(purged=False), rel=0.02)


def test_a_request_that_had_been_asked_for_at_a_purge_leaves_nothing_behind(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 60)
    driver.generator.purge(["late"])
    driver.submit("late", prompt, 2)
    driver.drain()
    assert driver.ask(prompt, 2).done.cached_tokens == 0
    assert driver.ask(prompt, 2).done.cached_tokens > 0


def test_streams_whose_cells_were_lost_read_again_and_end_whole(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    _begin(driver, spacious)
    driver.score("s", words(spacious, 70, seed=2), [" a b", " c d"])
    driver.until(lambda: bool(driver.generator._scores))
    driver.generator._cells.clear()
    driver.generator._start_over()
    answers = driver.drain()
    assert [answers[name].done.completion_tokens for name in ("one", "two")] == [30, 30]
    assert len(answers["s"].scored.logprobs) == 2
    assert driver.used == 0
