"""Prompts that were read before: who may use them, where they lie, and what damaged ones do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.engine.adapters import check
from edge_runtime.engine.llama import Llama
from edge_runtime.engine.snapshots import Snapshots
from edge_runtime.errors import RequestError
from tests.edge_runtime import adapter_files as files
from tests.edge_runtime.engine.generators import Driver, words

Drive = Callable[..., Driver]


# ---- whose it is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False])
def test_what_another_user_asked_shows_in_no_count_and_no_text(spacious: Llama, drive: Drive, together: bool) -> None:
    driver, secret = drive(spacious), words(spacious, 120)
    driver.submit("theirs", secret + " Then", 12, domain="uid:1")
    if together:
        driver.until(lambda: bool(driver.answers["theirs"].tokens))
    else:
        driver.drain()
    before = driver.prefilled
    driver.submit("mine", secret + " Now", 2, domain="uid:2")
    mine = driver.drain()["mine"].done
    assert (mine.cached_tokens, mine.tier) == (0, "none")
    assert driver.prefilled - before == mine.prompt_tokens
    # Told is where my own prompt departs from what is mine: at its beginning.
    assert secret.startswith(mine.diverged)


def test_two_users_who_ask_the_same_at_once_do_not_wait_for_each_other(spacious: Llama, drive: Drive) -> None:
    driver, prompt = drive(spacious), words(spacious, 100)
    for user in range(3):
        driver.submit(f"{user}", prompt, 2, domain=f"uid:{user}")
    driver.step()
    assert driver.generator.stats().running == 3
    answers = driver.drain()
    assert [answer.done.cached_tokens for answer in answers.values()] == [0, 0, 0]
    assert driver.prefilled == 300


def test_a_divergence_is_told_in_the_words_of_the_prompt_that_diverges(spacious: Llama, drive: Drive) -> None:
    driver, shared = drive(spacious), words(spacious, 80)
    driver.ask(shared + " and the dog of another prompt", 2)
    prompt = shared + " but a horse of this one" + words(spacious, 16, seed=3)
    told = driver.ask(prompt, 2).done
    assert told.diverged.startswith(" but a horse")
    assert "dog" not in told.diverged
    assert driver.ask(prompt, 2).done.diverged == ""


def test_what_is_public_is_shared_by_all_and_what_follows_by_nobody(spacious: Llama, drive: Drive) -> None:
    driver, public = drive(spacious), words(spacious, 100)
    mine = words(spacious, 40, seed=2)
    driver.ask(public + mine, 2, public=public, domain="uid:1")
    other = driver.ask(public + mine + " Now", 2, domain="uid:2").done
    assert 64 <= other.cached_tokens <= 100
    again = driver.ask(public + mine + " Then", 2, domain="uid:1").done
    assert again.cached_tokens > 100


def test_what_a_user_asked_before_it_became_public_is_shared_once_it_is(spacious: Llama, drive: Drive) -> None:
    driver, public = drive(spacious), words(spacious, 100)
    driver.ask(public + " One", 2, domain="uid:1")
    driver.ask(public + " Two", 2, public=public, domain="uid:1")
    assert driver.ask(public + " Three", 2, domain="uid:2").done.cached_tokens >= 64


def test_a_purge_forgets_what_was_read_and_what_is_just_being_read(spacious: Llama, drive: Drive) -> None:
    driver, done, running = drive(spacious), words(spacious, 100), words(spacious, 100, seed=1)
    driver.ask(done, 2)
    driver.submit("r", running, 6)
    driver.until(lambda: bool(driver.answers["r"].tokens))
    driver.generator.purge()
    # A new one must not take over cells of what was to be forgotten either.
    driver.submit("later", running + " Now", 2)
    answers = driver.drain()
    assert answers["r"].done.completion_tokens == 6
    assert answers["later"].done.cached_tokens == 0
    assert driver.ask(done, 2).done.cached_tokens == 0
    driver.generator.purge()
    driver.drain()
    assert driver.generator.stats().cache_bytes == 0


def test_prefixes_over_the_limit_are_dropped_and_all_goes_on(spacious: Llama, drive: Drive) -> None:
    driver = drive(spacious)
    driver.ask(words(spacious, 100), 2)
    size = driver.generator.stats().cache_bytes
    driver.generator.shrink(int(size * 1.5))
    driver.ask(words(spacious, 100, seed=1), 2)
    assert 0 < driver.generator.stats().cache_bytes <= size * 1.5
    assert driver.ask(words(spacious, 100, seed=1), 2).done.cached_tokens > 0
    assert driver.ask(words(spacious, 100), 2).done.cached_tokens == 0
    driver.generator.shrink(0)
    assert driver.generator.stats().cache_bytes == 0
    assert driver.ask(words(spacious, 100), 2).done.cached_tokens == 0


def test_where_rows_depend_on_their_number_only_whole_blocks_are_taken_over_by_a_greedy_text(
    spacious: Llama, drive: Drive
) -> None:
    driver, prompt = drive(spacious), words(spacious, 300)
    driver.generator.steps.invariant = False
    driver.ask(prompt, 2)
    assert driver.ask(prompt, 2).done.cached_tokens == 256
    assert driver.ask(prompt, 2, temperature=1.0).done.cached_tokens == 299


# ---- on disk -------------------------------------------------------------------------------------------------------


def _shelf(path: Path, identity: str = "weights; build") -> Snapshots:
    path.mkdir(exist_ok=True)
    return Snapshots(path, identity, 2**30)


def _keep(driver: Driver, shelf: Snapshots, prompt: str) -> None:
    driver.ask(prompt, 4)
    assert shelf.flush(60)
    shelf.close()


def test_a_prompt_is_found_on_disk_after_a_new_start_and_continued_to_the_bit(
    spacious: Llama, drive: Drive, tmp_path: Path
) -> None:
    shelf, prompt = _shelf(tmp_path / "kv"), words(spacious, 300)
    first = drive(spacious, shelf=shelf)
    cold = first.ask(prompt, 6, logprobs=0)
    assert shelf.flush(60)
    shelf.close()
    second = drive(spacious, shelf=_shelf(tmp_path / "kv"))
    assert second.generator.stats().cache_bytes == 0
    warm = second.ask(prompt, 6, logprobs=0)
    assert (warm.done.tier, warm.done.cached_tokens) == ("disk", 298)
    assert (warm.ids, warm.logprobs) == (cold.ids, cold.logprobs)
    assert second.ask(prompt, 2).done.tier == "memory"
    assert second.ask(prompt, 2, domain="uid:2").done.cached_tokens == 0


@pytest.mark.parametrize("place", [0.02, 0.5, 0.999])
def test_a_snapshot_with_one_bit_turned_over_is_read_anew(
    spacious: Llama, drive: Drive, tmp_path: Path, place: float
) -> None:
    shelf, prompt = _shelf(tmp_path / "kv"), words(spacious, 260)
    _keep(drive(spacious, shelf=shelf), shelf, prompt)
    (path,) = (tmp_path / "kv").glob("*.kv")
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 4
    path.write_bytes(data)
    driver = drive(spacious, shelf=_shelf(tmp_path / "kv"))
    answer = driver.ask(prompt, 6, logprobs=0)
    assert (answer.done.cached_tokens, answer.done.tier) == (0, "none")
    wanted = driver.ask(prompt, 6, logprobs=0, cache_prompt=False)
    assert (answer.ids, answer.logprobs) == (wanted.ids, wanted.logprobs)


def test_a_snapshot_that_was_taken_away_costs_a_reading_and_nothing_else(
    spacious: Llama, drive: Drive, tmp_path: Path
) -> None:
    shelf, prompt = _shelf(tmp_path / "kv"), words(spacious, 260)
    _keep(drive(spacious, shelf=shelf), shelf, prompt)
    driver = drive(spacious, shelf=_shelf(tmp_path / "kv"))
    for path in (tmp_path / "kv").glob("*.kv"):
        path.unlink()
    assert driver.ask(prompt, 2).done.cached_tokens == 0
    assert driver.ask(prompt, 2).done.cached_tokens > 0


def test_snapshots_of_other_weights_are_not_used(spacious: Llama, drive: Drive, tmp_path: Path) -> None:
    shelf, prompt = _shelf(tmp_path / "kv"), words(spacious, 260)
    _keep(drive(spacious, shelf=shelf), shelf, prompt)
    driver = drive(spacious, shelf=_shelf(tmp_path / "kv", "other weights; build"))
    assert driver.ask(prompt, 2).done.cached_tokens == 0


def test_a_purge_leaves_no_snapshot_on_disk(spacious: Llama, drive: Drive, tmp_path: Path) -> None:
    shelf, prompt = _shelf(tmp_path / "kv"), words(spacious, 260)
    driver = drive(spacious, shelf=shelf)
    driver.ask(prompt, 2)
    driver.submit("r", words(spacious, 260, seed=1), 4)
    driver.until(lambda: bool(driver.answers["r"].tokens))
    driver.generator.purge()
    driver.drain()
    assert shelf.flush(60)
    shelf.close()
    assert list((tmp_path / "kv").iterdir()) == []


# ---- adapters ------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(spacious: Llama, drive: Drive, tmp_path: Path) -> Driver:
    """A generator with two adapters."""
    driver = drive(spacious)
    for seed, name in enumerate(("one", "two"), 1):
        path = files.write(tmp_path / f"{name}.gguf", files.small_adapter(seed=seed))
        driver.generator.adapters.attach(name, check(path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return driver


def _free(driver: Driver) -> None:
    driver.generator.adapters.use("")
    for name in ("one", "two"):
        driver.generator.adapters.detach(name)


def test_what_was_read_with_one_adapter_is_not_used_with_another(adapted: Driver) -> None:
    prompt = words(adapted.model, 100)
    texts = {name: adapted.ask(prompt, 6, adapter=name) for name in ("", "one", "two")}
    assert [answer.done.cached_tokens for answer in texts.values()] == [0, 0, 0]
    assert len({tuple(answer.ids) for answer in texts.values()}) > 1
    for name, answer in texts.items():
        again = adapted.ask(prompt, 6, adapter=name)
        assert again.done.cached_tokens >= 64
        assert again.ids == answer.ids
    _free(adapted)


def test_texts_of_two_adapters_and_of_none_that_are_written_in_turns_are_those_of_each_alone(adapted: Driver) -> None:
    prompt = words(adapted.model, 40) + ". The"
    names = ("", "one", "two")
    alone = {
        name: adapted.ask(prompt, 10, adapter=name, cache_prompt=False, speculate=False, logprobs=2) for name in names
    }
    for name in names:
        adapted.submit(f"x{name}", prompt, 10, adapter=name, speculate=False)
    adapted.until(lambda: adapted.generator.stats().running == 3)
    answers = adapted.drain()
    # Prompts may be read in other steps than alone, so a text may depart where two tokens were as good as each other.
    for name in names:
        for token, known in zip(answers[f"x{name}"].tokens, alone[name].tokens, strict=True):
            if token.ids != known.ids:
                first, second = known.top
                assert first.logprob - second.logprob < 0.5
                break
    _free(adapted)


def test_an_adapter_that_is_not_attached_is_refused_and_one_that_goes_while_it_is_used_ends_only_that(
    adapted: Driver,
) -> None:
    with pytest.raises(RequestError, match="not attached"):
        adapted.submit("x", "One", adapter="three")
    adapted.submit("a", words(adapted.model, 20), 10, adapter="one")
    adapted.submit("b", words(adapted.model, 20), 10)
    adapted.until(lambda: bool(adapted.answers["a"].tokens) and bool(adapted.answers["b"].tokens))
    adapted.generator.adapters.detach("one")
    answers = adapted.drain()
    assert answers["b"].done.completion_tokens == 10
    assert answers["a"].end is not None
    assert adapted.used == 0
    _free(adapted)


def test_a_deterministic_request_is_written_with_its_adapter(adapted: Driver) -> None:
    prompt = words(adapted.model, 30) + ". The"
    plain = adapted.ask(prompt, 8, deterministic=True)
    changed = adapted.ask(prompt, 8, deterministic=True, adapter="one")
    wanted = adapted.ask(prompt, 8, adapter="one")
    assert changed.ids != plain.ids
    assert changed.ids[:2] == wanted.ids[:2]
    assert adapted.ask(prompt, 8, deterministic=True).ids == plain.ids
    _free(adapted)
