"""What the engine child answers, against bare loops over the same model."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.engine.llama import Llama
from edge_runtime.engine.messages import Params, Purge, Purged, Score, Scored, Submit
from edge_runtime.engine.sampling import log_softmax
from tests.edge_runtime.engine.children import LONG, PROMPT, Child, text


def _greedy(model: Llama, prompt: str, count: int) -> list[int]:
    """A bare loop over ``llama_decode``: the reference."""
    model.clear()
    tokens = model.vocabulary.tokens(prompt)
    model.decode(tokens, 0)
    found: list[int] = []
    while len(found) < count:
        token = int(model.logits().argmax())
        found.append(token)
        model.decode([token], len(tokens) + len(found) - 1)
    return found


def test_greedy_text_is_that_of_a_bare_decode_loop(child: Child, writer: Llama) -> None:
    child.send(Purge(id="p"))  # chunks and shared cells change the last bits of a float
    child.until(Purged, "p")
    tokens, done = child.ask(max_tokens=40)
    wanted = b"".join(map(writer.vocabulary.piece, _greedy(writer, PROMPT, 40)))
    assert text(tokens) == wanted.decode()
    assert (done.reason, done.completion_tokens, done.prompt_tokens) == (
        "length",
        40,
        len(writer.vocabulary.tokens(PROMPT)),
    )


def test_a_second_request_reuses_the_cells_of_the_first_and_says_the_same(child: Child) -> None:
    child.send(Purge(id="p"))
    child.until(Purged, "p")
    first, cold = child.ask()
    second, warm = child.ask()
    assert cold.cached_tokens == 0
    # Two tokens are evaluated again: logits are needed, and one row alone goes through another kernel than several.
    assert warm.cached_tokens == warm.prompt_tokens - 2
    assert warm.tier == "memory"
    assert text(first) == text(second)
    _, fresh = child.ask(cache_prompt=False)
    assert fresh.cached_tokens == 0


def test_only_the_shared_beginning_is_reused(child: Child, writer: Llama) -> None:
    known = "In the second building of the works there stands a pump, and every morning somebody looks after it. "
    child.ask(known + "The pump is a machine that moves water.", max_tokens=1)
    _, done = child.ask(known + "The pump is a bird.", max_tokens=1)
    one, two = (writer.vocabulary.tokens(known + text) for text in ("The pump is a machine", "The pump is a bird."))
    assert done.diverged.startswith(" bird")
    assert done.cached_tokens == sum(1 for a, b in zip(one, two, strict=False) if a == b)


def test_after_a_purge_nothing_is_reused(child: Child) -> None:
    child.ask(max_tokens=1)
    child.send(Purge(id="p"))
    assert child.until(Purged, "p") == [Purged(id="p")]
    _, done = child.ask(max_tokens=1)
    assert done.cached_tokens == 0


def test_a_stop_string_ends_the_text_before_it_even_where_tokens_split_it(child: Child) -> None:
    whole = text(child.ask(max_tokens=30)[0])
    stop = whole[12:20]  # it begins and ends inside words
    tokens, done = child.ask(max_tokens=30, stop=["never said", stop])
    assert (text(tokens), done.reason) == (whole[: whole.index(stop)], "stop")


def test_the_end_token_ends_the_text_unless_it_is_ignored(child: Child) -> None:
    prompt = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>"
    over, done = child.ask(prompt + "\n<|im_start|>assistant\n", max_tokens=200)
    assert done.reason == "stop"
    assert done.completion_tokens < 200
    more, ignored = child.ask(
        prompt + "\n<|im_start|>assistant\n", max_tokens=done.completion_tokens + 5, ignore_eos=True
    )
    assert (ignored.reason, ignored.completion_tokens) == ("length", done.completion_tokens + 5)
    assert text(more).startswith(text(over))


def test_a_stop_string_that_spells_a_control_token_ends_the_text_at_that_token(child: Child, writer: Llama) -> None:
    name = "<repo_name>"
    (token,) = writer.vocabulary.tokens(name, bos=False)
    assert not writer.vocabulary.ends(token)
    forced = {"logit_bias": {token: 100.0}, "max_tokens": 5}
    assert child.ask(**forced)[1].reason == "length"  # type: ignore[arg-type]
    tokens, done = child.ask(stop=["never said", name], **forced)  # type: ignore[arg-type]
    assert (text(tokens), done.reason, done.completion_tokens) == ("", "stop", 1)


def test_the_same_seed_gives_the_same_text_and_another_seed_another(child: Child) -> None:
    def say(seed: int) -> str:
        return text(child.ask(temperature=1.3, top_k=0, top_p=1.0, seed=seed, cache_prompt=False)[0])

    assert say(5) == say(5)
    assert say(5) != say(6)


def test_log_probabilities_are_those_of_the_model_and_the_best_sum_below_one(child: Child, writer: Llama) -> None:
    tokens, done = child.ask(max_tokens=8, logprobs=5, cache_prompt=False)
    told = [token for token in tokens if token.logprob is not None]
    assert len(told) == done.completion_tokens
    assert b"".join(token.piece for token in told).decode() == text(tokens)
    writer.clear()
    ids = writer.vocabulary.tokens(PROMPT)
    writer.decode(ids, 0)
    for place, token in enumerate(told):
        logs = log_softmax(writer.logits())
        best = int(logs.argmax())
        assert token.logprob == pytest.approx(float(logs[best]), abs=0.05)
        assert [top.logprob for top in token.top] == sorted((top.logprob for top in token.top), reverse=True)
        assert len(token.top) == 5
        assert token.top[0].text == writer.vocabulary.piece(best, special=True)
        assert sum(np.exp(top.logprob) for top in token.top) <= 1.0001
        writer.decode([best], len(ids) + place)


def test_half_a_character_is_never_sent(child: Child) -> None:
    tokens, _ = child.ask("Emoji: 🚰🔧🌊🚰🔧🌊🚰🔧🌊🚰", max_tokens=24, logprobs=0)
    assert any(not token.text for token in tokens)  # this tokenizer does cut characters
    assert text(tokens) == b"".join(token.piece for token in tokens).decode("utf-8", "replace")
    assert all("\ufffd" not in token.text for token in tokens[:-1])


def test_scores_are_the_sums_of_a_naive_pass_over_each_choice(child: Child, writer: Llama) -> None:
    prompt, choices = "The capital of France is", [" Paris", " Rome", " the largest city of the country, by far"]
    child.send(Score(id="s", domain="uid:1", prompt=prompt, choices=choices))
    scored = child.until(Scored, "s")[-1]
    assert isinstance(scored, Scored)
    for choice, found, count in zip(choices, scored.logprobs, scored.tokens, strict=True):
        head, tail = writer.vocabulary.tokens(prompt), writer.vocabulary.tokens(choice, bos=False)
        writer.clear()
        writer.decode([*head, *tail], 0, outputs=len(tail) + 1)
        wanted = sum(
            float(log_softmax(writer.logits(len(head) - 1 + place))[token]) for place, token in enumerate(tail)
        )
        assert count == len(tail)
        assert found == pytest.approx(wanted, abs=0.15 * count)
    assert scored.logprobs[0] > scored.logprobs[1]


def test_a_score_with_an_empty_choice_is_refused(child: Child) -> None:
    assert child.fail(Score(id="a", domain="uid:1", prompt="x", choices=["yes", ""])).code == "invalid_request"


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(child: Child, writer: Llama) -> None:
    failed = child.fail(Submit(id="a", domain="uid:1", prompt=LONG, params=Params(max_tokens=1)))
    assert failed.code == "context_length_exceeded"
    assert str(len(writer.vocabulary.tokens(LONG))) in failed.message
    assert "512" in failed.message
    assert child.ask(max_tokens=1)[1].completion_tokens == 1


def test_an_answer_longer_than_the_context_ends_at_its_edge(child: Child, writer: Llama) -> None:
    prompt = "The pump runs. " * 120
    room = 512 - len(writer.vocabulary.tokens(prompt))
    assert 0 < room < 60
    _, done = child.ask(prompt, max_tokens=500, ignore_eos=True)
    assert (done.reason, done.completion_tokens) == ("length", room)
