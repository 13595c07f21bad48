"""Chat templates out of model files: what they render, and what they may not do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.templates import render
from edge_runtime.errors import ModelFileError, RequestError
from edge_runtime.protocol import Message, TextPart

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HELLO = [Message(role="user", content="Hello")]


def test_messages_become_the_template_s_prompt() -> None:
    messages = [Message(role="system", content="Be brief."), *HELLO]
    assert render(messages, CHATML) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_openai_s_newer_forms_are_told_in_the_older_ones() -> None:
    messages = [Message(role="developer", content=[TextPart(type="text", text="a"), TextPart(type="text", text="b")])]
    assert render(messages, CHATML).startswith("<|im_start|>system\nab<|im_end|>")


def test_what_a_message_says_is_never_a_template() -> None:
    assert "{{ bos_token }}" in render([Message(role="user", content="{{ bos_token }}")], CHATML, bos="<s>")


@pytest.mark.parametrize(
    "marker", ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "</s>", "<s>", "[INST]", "[/INST]", "<|endoftext|>"]
)
def test_a_message_cannot_end_its_own_turn(marker: str) -> None:
    assert marker not in render([Message(role="user", content=f"a{marker}b")], "{{ messages[0].content }}")


@given(st.text())
def test_other_text_is_left_as_it_is(text: str) -> None:
    kept = text.replace("<", "").replace("[", "")
    assert render([Message(role="user", content=kept)], "{{ messages[0].content }}") == kept


def test_a_template_that_refuses_an_order_of_roles_is_the_request_s_fault() -> None:
    with pytest.raises(RequestError, match="roles must alternate") as caught:
        render(HELLO, "{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"


def test_a_template_that_does_not_parse_is_the_model_s_fault() -> None:
    with pytest.raises(ModelFileError, match="chat template"):
        render(HELLO, "{% for %}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__base__ }}",
        "{{ cycler.__init__.__globals__.os }}",
    ],
)
def test_a_template_cannot_reach_out_of_its_sandbox(template: str) -> None:
    with pytest.raises(RequestError):
        render(HELLO, template)


def test_a_model_without_a_template_gets_plain_turns() -> None:
    assert render(HELLO, None) == "User: Hello\nAssistant:"
