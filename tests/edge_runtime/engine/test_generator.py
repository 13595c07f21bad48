"""Many requests on one model: they share what they have in common, and each says what it would have said alone."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.engine.adapters import check
from edge_runtime.engine.costs import StepCost
from edge_runtime.engine.llama import Llama
from edge_runtime.engine.messages import Failed
from edge_runtime.engine.sampling import log_softmax
from edge_runtime.errors import ContextLengthError, RequestError
from tests.edge_runtime import adapter_files as files
from tests.edge_runtime.engine.generators import BATCH, Answer, Driver, words

Drive = Callable[..., Driver]


# ---- one beginning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [0, 1, 2])
def test_many_who_share_a_beginning_read_it_once(spacious: Llama, drive: Drive, apart: int) -> None:
    driver, beginning = drive(spacious), words(spacious, 300)
    prompts = [beginning + words(spacious, 6, seed=1 + number) for number in range(5)]
    for number, prompt in enumerate(prompts):
        driver.submit(f"{number}", prompt, 4)
        for _ in range(apart):
            driver.step()
    answers = driver.drain()
    assert driver.prefilled <= 300 + 5 * 6 + 5 * 2
    assert sum(answer.done.cached_tokens >= 300 for answer in answers.values()) == 4
    assert driver.used == 0


def test_a_reader_that_is_cancelled_halfway_leaves_what_it_read_to_the_others(spacious: Llama, drive: Drive) -> None:
    driver, beginning = drive(spacious), words(spacious, 400)
    for number in range(4):
        driver.submit(f"{number}", beginning + words(spacious, 6, seed=1 + number), 4)
    driver.until(lambda: driver.prefilled > 0)
    assert driver.prefilled < 400
    driver.cancel("0")
    answers = driver.drain()
    assert answers["0"].done.reason == "cancelled"
    assert driver.prefilled <= 400 + 4 * 6 + BATCH
    assert all(answers[f"{number}"].done.completion_tokens == 4 for number in range(1, 4))
    assert driver.used == 0


def test_one_that_wants_no_shared_cells_reads_all_itself(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 100)
    driver.ask(prompt, 1)
    alone = driver.ask(prompt, 1, cache_prompt=False)
    assert (alone.done.cached_tokens, alone.done.tier, driver.prefilled) == (0, "none", 200)


def test_an_urgent_request_does_not_wait_for_a_prompt_that_a_lower_class_reads(spacious: Llama, drive: Drive) -> None:
    driver, beginning = drive(spacious), words(spacious, 300)
    driver.submit("low", beginning + words(spacious, 6, seed=1), 2, priority="batch")
    driver.step()
    # Others of the middle class come in between, and the lowest stands still behind them.
    for number in range(2):
        driver.submit(f"mid{number}", words(spacious, 250, seed=5 + number), 2)
    driver.submit("high", beginning + words(spacious, 6, seed=2), 2, priority="realtime")
    driver.until(lambda: driver.answers["high"].end is not None)
    assert all(driver.answers[name].end is None for name in ("low", "mid0", "mid1"))
    driver.drain()


# ---- exactness -----------------------------------------------------------------------------------------------------


def _alone(driver: Driver, prompt: str, count: int = 8) -> Answer:
    return driver.ask(prompt, count, cache_prompt=False, speculate=False, logprobs=0)


def test_a_prompt_of_any_length_that_was_read_before_is_continued_to_the_bit_as_if_it_had_not_been(
    spacious: Llama, drive: Drive
) -> None:
    driver = drive(spacious)
    cached = 0
    for length in (*range(62, 67), *range(126, 131)):
        driver.ask(words(spacious, length, length), 1)
        for more in (0, 3) if length < 128 else (2,):
            prompt = words(spacious, length + more, length)
            shared, cold = driver.ask(prompt, 4, logprobs=0), _alone(driver, prompt, 4)
            assert shared.ids == cold.ids, (length, more)
            assert shared.logprobs == cold.logprobs, (length, more)
            cached += shared.done.cached_tokens
    assert cached > 15 * 64


def test_each_turn_of_a_growing_conversation_is_answered_to_the_bit_as_if_it_were_the_first(
    spacious: Llama, drive: Drive
) -> None:
    driver = drive(spacious)
    talk, cached = words(spacious, 40), []
    for turn in range(6):
        talk += words(spacious, 7 + turn, seed=10 + turn)
        shared, cold = driver.ask(talk, 12, logprobs=0), _alone(driver, talk, 12)
        assert (shared.ids, shared.logprobs) == (cold.ids, cold.logprobs), turn
        cached.append(shared.done.cached_tokens)
        talk += shared.text
    assert all(cached[2:])


def test_guesses_change_no_greedy_text(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    flat = StepCost()  # as if this machine took eight rows as quickly as one
    for number in range(400):
        flat.observe(number % 8 + 1, number, 5.0)
    accepted = 0
    for seed in range(3):
        prompt = (words(spacious, 12, seed) + ".") * 6 + words(spacious, 3, seed)
        slow = driver.ask(prompt, 30, speculate=False)
        driver.submit("quick", prompt, 30)
        while driver.generator.busy:
            driver.generator.steps._costs[1] = copy.deepcopy(flat)
            driver.step()
        quick = driver.answers["quick"]
        assert quick.ids == slow.ids
        assert "".join(token.text for token in quick.tokens) == slow.text
        assert slow.done.drafted == 0
        assert quick.done.drafted >= quick.done.accepted
        accepted += quick.done.accepted
    assert accepted > 30


def _reference(model: Llama, prompt: str, ids: list[int]) -> np.ndarray:
    """Logits of a bare loop that is told what to say."""
    model.clear()
    tokens = model.vocabulary.tokens(prompt)
    model.decode(tokens, 0)
    rows = [model.logits().copy()]
    for place, token in enumerate(ids[:-1]):
        model.decode([token], len(tokens) + place)
        rows.append(model.logits().copy())
    return np.array(rows)


def _by_piece(model: Llama, row: np.ndarray) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for token in np.argsort(-row)[:400].tolist():
        piece = model.vocabulary.piece(token, special=True)
        found[piece] = found.get(piece, 0.0) + float(np.exp(row[token]))
    return found


def _divergence(told: dict[bytes, float], known: dict[bytes, float]) -> float:
    """Kullback-Leibler divergence over the tokens that were told, and one for all the others."""
    pairs = [(chance, known.get(piece, 1e-9)) for piece, chance in told.items()]
    pairs.append(tuple(max(1 - sum(column), 1e-9) for column in zip(*pairs, strict=True)))  # type: ignore[arg-type]
    return sum(one * np.log(one / other) for one, other in pairs)


def test_in_company_the_probabilities_are_those_of_a_bare_loop_and_a_text_departs_only_at_a_near_tie(
    spacious: Llama, writer: Llama, drive: Drive
) -> None:
    driver = drive(spacious)
    prompts = [words(spacious, 20 + 9 * number, seed=number) + ". The" for number in range(6)]
    for number, prompt in enumerate(prompts):
        driver.submit(f"{number}", prompt, 16, logprobs=50)
    driver.until(lambda: driver.generator.stats().running == 6)
    answers = driver.drain()
    apart: list[float] = []
    control: list[float] = []
    for number, prompt in enumerate(prompts):
        answer = answers[f"{number}"]
        rows = _reference(writer, prompt, answer.ids)
        logs = [log_softmax(row) for row in rows]
        for place, token in enumerate(answer.tokens):
            told: dict[bytes, float] = {}
            for one in token.top:
                told[one.text] = told.get(one.text, 0.0) + float(np.exp(one.logprob))
            apart.append(_divergence(told, _by_piece(writer, logs[place])))
            control.append(_divergence(told, _by_piece(writer, logs[place - 1])))
            # As long as both have said the same, the choice is the bare loop's, or as good as that.
            assert rows[place].max() - rows[place][answer.ids[place]] < 0.5
    assert len(apart) == 6 * 16
    assert float(np.mean(apart)) < 0.01
    assert float(np.mean(control)) > 1


# ---- cancels -------------------------------------------------------------------------------------------------------


def test_a_step_that_is_aborted_reads_nothing_and_is_made_again(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 120)
    wanted = _alone(driver, prompt)
    before = driver.prefilled
    driver.submit("x", prompt, cache_prompt=False, speculate=False, logprobs=0)
    seen = threading.Event()

    def interrupt() -> None:
        while not driver.generator.steps.owners:
            pass
        seen.set()
        spacious.abort()

    thread = threading.Thread(target=interrupt)
    thread.start()
    driver.step()
    thread.join()
    assert seen.is_set()
    assert (driver.prefilled, driver.used) == (before, 0)
    answer = driver.drain()["x"]
    assert (answer.ids, answer.logprobs) == (wanted.ids, wanted.logprobs)


def test_an_abort_that_comes_when_nothing_runs_harms_nobody(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 30)
    wanted = driver.ask(prompt)
    spacious.abort()
    assert driver.ask(prompt).ids == wanted.ids


def test_whoever_is_cancelled_frees_its_cells_at_once_wherever_it_is(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    for number in range(8):  # two more than there are slots
        driver.submit(f"{number}", words(spacious, 150, seed=number), 50)
    driver.until(lambda: bool(driver.answers["0"].tokens))
    for number in range(8):
        driver.cancel(f"{number}")
    assert driver.used == 0
    assert not driver.generator.busy
    assert {answer.done.reason for answer in driver.answers.values()} == {"cancelled"}


# ---- resume --------------------------------------------------------------------------------------------------------


def test_a_text_that_is_taken_up_at_any_place_goes_on_as_it_would_have(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 30) + ". The"
    whole = driver.ask(prompt, 10, cache_prompt=False, speculate=False)
    assert len(whole.ids) == 10
    for count in range(11):
        rest = driver.ask(prompt, 10, cache_prompt=False, speculate=False, resume=whole.ids[:count])
        assert whole.ids[:count] + rest.ids == whole.ids
        assert (rest.done.completion_tokens, rest.done.reason) == (10, "length")
        assert "".join(token.text for token in whole.tokens[:count]) + rest.text == whole.text


def test_a_text_whose_stop_had_come_before_the_engine_died_ends_there(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 30) + ". The"
    whole = driver.ask(prompt, 10, speculate=False)
    stop = whole.text[8:14]
    stopped = driver.ask(prompt, 10, speculate=False, stop=[stop])
    assert stopped.done.reason == "stop"
    again = driver.ask(prompt, 10, speculate=False, stop=[stop], resume=stopped.ids)
    assert (again.ids, again.text, again.done.reason) == ([], "", "stop")
    assert again.done.completion_tokens == stopped.done.completion_tokens


@pytest.mark.parametrize("token", [-1, 49152, 2**31 - 1, 2**40])
def test_tokens_to_resume_from_that_the_model_does_not_have_are_refused(
    spacious: Llama, drive: Drive, token: int
) -> None:
    driver = drive(spacious)
    with pytest.raises(RequestError, match="token"):
        driver.submit("x", "One", 8, resume=[5, token])
    assert driver.ask("One, two,", 2).done.completion_tokens == 2


# ---- little room ---------------------------------------------------------------------------------------------------


def test_with_cells_for_a_third_of_them_everybody_comes_to_the_end(cramped: Llama, drive: Drive) -> None:
    driver = drive(cramped)
    classes = ("batch", "interactive", "batch", "realtime", "batch", "interactive")
    for number, priority in enumerate(classes):
        driver.submit(f"{number}", words(cramped, 50 + number, seed=number), 60, priority=priority)
    answers = driver.drain()
    assert [answers[f"{number}"].done.completion_tokens for number in range(6)] == [60] * 6
    assert {answer.done.reason for answer in answers.values()} == {"length"}
    assert sum(answer.done.parked for answer in answers.values()) > 0
    assert answers["3"].done.parked == 0
    assert driver.used == 0


def test_one_that_was_parked_says_what_it_would_have_said(cramped: Llama, drive: Drive) -> None:
    driver = drive(cramped)
    prompts = [words(cramped, 60, seed=number) + ". The" for number in range(3)]
    wanted = [driver.ask(prompt, 80, cache_prompt=False) for prompt in prompts]
    for number, prompt in enumerate(prompts):
        driver.submit(f"{number}", prompt, 80)
    driver.drain()
    # Neighbours may move a near tie; most of three texts of 80 tokens stay as they are for long.
    same = [
        next((place for place, (one, other) in enumerate(zip(answer.ids, cold.ids, strict=True)) if one != other), 80)
        for answer, cold in zip((driver.answers[f"{number}"] for number in range(3)), wanted, strict=True)
    ]
    assert sum(driver.answers[f"{number}"].done.parked for number in range(3)) > 0
    assert sum(same) > 80


def test_an_urgent_request_takes_the_room_of_a_batch_at_once(cramped: Llama, drive: Drive) -> None:
    driver = drive(cramped)
    for number in range(2):
        driver.submit(f"{number}", words(cramped, 90, seed=number), 30, priority="batch")
    driver.until(lambda: bool(driver.answers["1"].tokens))
    driver.submit("now", words(cramped, 100, seed=7), 2, priority="realtime")
    driver.step()
    assert driver.generator.stats().parked == 1
    driver.until(lambda: driver.answers["now"].end is not None)
    assert all(driver.answers[f"{number}"].end is None for number in range(2))
    answers = driver.drain()
    assert [answers[f"{number}"].done.completion_tokens for number in range(2)] == [30, 30]
    assert answers["now"].done.parked == 0


def test_a_batch_that_was_parked_stands_in_no_urgent_request_s_way_however_old_it_is(
    cramped: Llama, drive: Drive
) -> None:
    driver = drive(cramped)
    for number in range(2):
        driver.submit(f"{number}", words(cramped, 90, seed=number), 30, priority="batch")
    driver.until(lambda: bool(driver.answers["1"].tokens))
    for one in driver.generator._roster.running.values():
        one.arrived -= 600
        one.since -= 600
    for number in range(2):
        driver.submit(f"now{number}", words(cramped, 90, seed=7 + number), 8, priority="realtime")
        driver.step()
        assert driver.generator.stats().parked == number + 1
    answers = driver.drain()
    assert all(answers[f"now{number}"].done.parked == 0 for number in range(2))
    assert [answers[f"{number}"].done.completion_tokens for number in range(2)] == [30, 30]


def test_a_step_whose_only_stream_must_make_room_is_left_out(
    cramped: Llama, drive: Drive, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    driver = drive(cramped)
    path = files.write(tmp_path / "one.gguf", files.small_adapter())
    driver.generator.adapters.attach("one", check(path, hashlib.sha256(path.read_bytes()).hexdigest()))
    driver.submit("a", words(cramped, 90), 60, priority="realtime")
    driver.submit("b", words(cramped, 90, seed=1), 60, priority="batch", adapter="one")
    answers = driver.drain()
    assert answers["b"].done.parked > 0
    assert [answers[name].done.completion_tokens for name in "ab"] == [60, 60]
    assert capfd.readouterr().err == ""
    driver.generator.adapters.use("")
    driver.generator.adapters.detach("one")


def test_cells_that_a_prompt_is_still_to_fill_are_promised_to_nobody_else(cramped: Llama, drive: Drive) -> None:
    driver = drive(cramped)
    for number in range(4):
        driver.submit(f"{number}", words(cramped, 150, seed=number), 3)
        driver.step()
    answers = driver.drain()
    assert [answers[f"{number}"].done.parked for number in range(4)] == [0] * 4


def test_a_request_for_more_than_the_context_is_refused_and_nobody_else_notices(cramped: Llama, drive: Drive) -> None:
    driver = drive(cramped)
    driver.submit("a", words(cramped, 30), 20)
    driver.step()
    with pytest.raises(ContextLengthError):
        driver.submit("b", words(cramped, 256, seed=1), 1)
    assert driver.drain()["a"].done.completion_tokens == 20


def test_a_request_for_exactly_the_context_fills_it_to_the_last_cell(cramped: Llama, drive: Drive) -> None:
    driver = drive(cramped)
    answer = driver.ask(words(cramped, 250), 100)
    assert (answer.done.completion_tokens, answer.done.reason) == (6, "length")
    for number in range(3):
        driver.submit(f"{number}", words(cramped, 240, seed=number), 100)
    answers = driver.drain()
    assert all(answers[f"{number}"].done.completion_tokens == 16 for number in range(3))


def test_a_failed_step_ends_those_in_it_and_no_later_one(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    driver.submit("a", words(spacious, 20), 20)
    driver.submit("b", words(spacious, 20, seed=1), 20)
    driver.until(lambda: bool(driver.answers["b"].tokens))
    running = {one.id: one for one in driver.generator._roster.running.values()}
    running["b"].tokens[-1] = 10**6  # no token of the model: llama.cpp refuses the step
    driver.until(lambda: driver.answers["b"].end is not None)
    assert isinstance(driver.answers["b"].end, Failed)
    driver.submit("c", words(spacious, 20, seed=2), 5)
    assert driver.drain()["c"].done.completion_tokens == 5
    assert driver.used == 0
