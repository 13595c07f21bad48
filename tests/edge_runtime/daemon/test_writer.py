"""From messages to the engine's order: the template's rules, and what of a prompt every user may share."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.admission import Limits
from edge_runtime.daemon.child import Child
from edge_runtime.daemon.engine import LONGEST_TOKEN, Engine
from edge_runtime.daemon.events import Events
from edge_runtime.daemon.writer import Writer
from edge_runtime.engine.messages import Load, Params, Ready, Submit
from edge_runtime.errors import ContextLengthError, RequestError
from edge_runtime.openai_protocol import Message
from models.catalog import Chat

RULES = "You answer for the pump station."
WANTS_USER = (
    "{% if messages[0]['role'] == 'system' and messages|length < 2 %}{{ raise_exception('no user') }}{% endif %}x"
)


def prepared(messages: list[Message], *, own: bool = False, template: str = "file", system: bool = True) -> Submit:
    child = Child("engine", "nowhere", options=[], find=lambda: Load(path="", name="m"), events=Events())
    child.ready = Ready(name="m", context=4096, width=10, bos="<s>", eos="</s>")
    chat = Chat(template=template, system=system, thinking=None, stop=("<|im_end|>",))
    writer = Writer(Engine(child, Limits(slots=1, queue=1, per_user=1)), "m", lambda: chat, [RULES])
    order = Submit(id="", prompt="", domain="uid 7", params=Params(stop=["END"]))
    return asyncio.run(writer.prepare(messages, order, own=own))


def talk(system: str, user: str, role: str = "system") -> list[Message]:
    return [Message(role=role, content=system), Message(role="user", content=user)]  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_declared_system_prompt_is_shared_up_to_its_end(role: str) -> None:
    submit = prepared(talk(RULES, "Which torque?", role))
    assert submit.public == f"<|im_start|>system\n{RULES}<|im_end|>\n"
    assert submit.prompt.startswith(submit.public)
    assert (submit.domain, submit.params.stop) == ("uid 7", ["END", "<|im_end|>"])


def test_messages_that_fit_no_context_are_refused_before_the_template_reads_them() -> None:
    half = "word " * (4096 * LONGEST_TOKEN // 10)
    wrong = "{{ raise_exception('read') }}"
    with pytest.raises(ContextLengthError, match="at most") as refused:
        prepared(talk(half, half + "too many words"), template=wrong)
    assert refused.value.param == "messages"
    with pytest.raises(RequestError, match="read"):
        prepared(talk(half, ""), template=wrong)


def test_any_other_system_prompt_is_its_user_s_own() -> None:
    assert prepared(talk(f"{RULES} The door's code is 4711.", "x")).public == ""
    assert prepared([Message(role="user", content=RULES)]).public == ""
    assert prepared(talk("Ours, whatever it says.", "x"), own=True).public.endswith("says.<|im_end|>\n")


def test_a_template_without_a_system_role_shares_what_stands_before_the_question() -> None:
    submit = prepared(talk(RULES, "Which torque?"), system=False)
    assert submit.public == f"<|im_start|>user\n{RULES}"
    assert submit.prompt.startswith(submit.public)


def test_a_template_that_wants_a_user_s_turn_shares_nothing() -> None:
    assert prepared(talk(RULES, "Which torque?"), template=WANTS_USER).public == ""


@given(st.text(max_size=40), st.booleans())
def test_no_word_of_a_user_is_ever_shared(said: str, system: bool) -> None:
    shared = {prepared(talk(RULES, text), system=system).public for text in (said, f"{said}!", "Z")}
    longest = max(shared, key=len)
    assert all(longest.startswith(one) for one in shared)
    assert longest in {f"<|im_start|>system\n{RULES}<|im_end|>\n", f"<|im_start|>user\n{RULES}"}
