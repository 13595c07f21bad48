"""Tools: what a request offers, and how calls are cut out of what the model writes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon import tools
from edge_runtime.daemon.tools import Argument, Begun, CallReader, Piece, Said, Speech
from edge_runtime.engine import structure
from edge_runtime.engine.structure import Calls
from edge_runtime.errors import RequestError
from edge_runtime.openai_protocol import ChatRequest, Delta

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
STOP = {"type": "function", "function": {"name": "stop"}}


def _body(**fields: Any) -> ChatRequest:
    plain = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [WEATHER, STOP], **fields}
    return msgspec.convert(plain, ChatRequest)


def _calls(**fields: Any) -> Calls:
    offer = tools.read_offer(_body(**fields), 64)
    assert offer is not None
    form = structure.decode(offer.structure)
    assert isinstance(form, Calls)
    return form


def test_tools_alone_may_be_called_and_need_not() -> None:
    form = _calls()
    assert [function.name for function in form.functions] == ["weather", "stop"]
    assert (form.required, form.many) == (False, True)
    assert not _calls(parallel_tool_calls=False).many


def test_a_demanded_call_is_one_of_all_or_the_one_that_is_named() -> None:
    assert (_calls(tool_choice="required").required, _calls(tool_choice="required").many) == (True, False)
    named = _calls(tool_choice={"type": "function", "function": {"name": "stop"}})
    assert [function.name for function in named.functions] == ["stop"]
    assert named.required


def test_a_function_without_parameters_takes_none() -> None:
    stop = _calls().functions[1].parameters
    assert (stop["properties"], stop["additionalProperties"]) == ({}, False)


@pytest.mark.parametrize(
    "fields", [{"tools": []}, {"tools": None}, {"tool_choice": "none"}, {"tools": None, "tool_choice": "auto"}]
)
def test_no_tool_that_may_be_called_is_no_offer(fields: dict[str, Any]) -> None:
    assert tools.read_offer(_body(**fields), 64) is None
    assert tools.speech(_body(**fields)).reader is None


def _tool(name: str, parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": None, "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "absent"}}}, "tool_choice"),
        ({"tools": [STOP, STOP]}, "tools"),
        ({"tools": [_tool("a", {"type": "string"})]}, "tools[0].function.parameters"),
        ({"tools": [STOP, _tool("a", {"not": {}})]}, "tools[1].function.parameters"),
        ({"tools": [_tool("a", {"enum": list(range(9999))})]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_an_offer_that_cannot_be_kept_is_refused_by_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        tools.read_offer(_body(**fields), 64)
    assert caught.value.param == param


# ---- reading -------------------------------------------------------------------------------------------------------


def _read(text: str, cuts: list[int], names: Sequence[str] = ()) -> list[Piece]:
    """Pieces, with those of one kind beside each other put together."""
    reader, found = CallReader(names), list[Piece]()
    ends = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for piece in itertools.chain(*(reader.feed(text[a:b]) for a, b in itertools.pairwise(ends)), reader.finish()):
        match (found[-1] if found else None), piece:
            case Said(before), Said(more):
                found[-1] = Said(before + more)
            case Argument(index, before), Argument(_, more):
                found[-1] = Argument(index, before + more)
            case _:
                found.append(piece)
    return found


_TRICKS = st.lists(st.sampled_from(['"', "}", "{", "\\", "</tool_call>"]), max_size=3)
_ARGUMENTS = st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers() | _TRICKS, max_size=3)


@given(
    st.sampled_from(["", "Wait.", "a < b <tool", " x\n\n y"]),
    st.lists(_ARGUMENTS, max_size=3),
    st.lists(st.integers(0, 999), max_size=9),
)
def test_calls_are_found_however_the_text_is_cut(
    said: str, given_arguments: list[dict[str, Any]], cuts: list[int]
) -> None:
    calls = [
        f'<tool_call>\n{{"name": "weather", "arguments": {json.dumps(arguments)}}}\n</tool_call>'
        for arguments in given_arguments
    ]
    found = _read("\n".join(filter(None, [said, *calls])), cuts)
    expected: list[Piece] = [Said(said)] if said else []
    for index, arguments in enumerate(given_arguments):
        expected += [Begun(index, "weather"), Argument(index, json.dumps(arguments))]
    assert found == expected


@given(st.text(alphabet='<tool_ca>/{}"\n x', max_size=60), st.lists(st.integers(0, 99), max_size=9))
def test_any_text_is_read_without_an_error(text: str, cuts: list[int]) -> None:
    found = _read(text, cuts, names=["a"])
    if "<tool_call>" not in text:
        assert "".join(piece.text for piece in found if isinstance(piece, Said)) == text


@given(
    _ARGUMENTS, st.sampled_from(["```json\n{}\n```", "{}", "\n```\n{}```"]), st.lists(st.integers(0, 999), max_size=9)
)
def test_a_call_without_marks_is_found_at_the_beginning(arguments: dict[str, Any], fence: str, cuts: list[int]) -> None:
    said = json.dumps(arguments, indent=2)
    text = fence.replace("{}", f'{{\n  "name": "weather", "arguments": {said}\n}}')
    assert _read(text, cuts, names=["weather"]) == [Begun(0, "weather"), Argument(0, said)]
    assert _read(f"Like so: {text}", cuts, names=["weather"]) == [Said(f"Like so: {text}")]
    assert _read(text, cuts, names=["stop"]) == [Said(text)]


def test_a_call_that_is_cut_off_keeps_what_there_is() -> None:
    found = _read('<tool_call>\n{"name": "weather", "arguments": {"city": "Ro', [])
    assert found == [Begun(0, "weather"), Argument(0, '{"city": "Ro')]


def test_deltas_have_the_shapes_of_openai() -> None:
    ids = itertools.count()
    speech = Speech(lambda: f"call_{next(ids)}", CallReader())
    text = 'Yes.\n<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'
    deltas = [delta for character in text for delta in speech.feed(character)] + speech.feed("", last=True)
    plain = [msgspec.to_builtins(delta) for delta in deltas]
    assert "".join(delta.get("content", "") for delta in plain) == "Yes."
    assert plain[-3]["tool_calls"] == [
        {"index": 0, "id": "call_0", "type": "function", "function": {"name": "stop", "arguments": ""}}
    ]
    assert [delta["tool_calls"][0]["function"]["arguments"] for delta in plain[-2:]] == ["{", "}"]
    assert msgspec.to_builtins(speech.message) == {
        "role": "assistant",
        "content": "Yes.",
        "tool_calls": [{"id": "call_0", "type": "function", "function": {"name": "stop", "arguments": "{}"}}],
    }
    assert (speech.reason("stop"), speech.reason("length")) == ("tool_calls", "length")


def test_a_message_of_calls_alone_has_no_content() -> None:
    speech = Speech(lambda: "call", CallReader())
    speech.feed('<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>', last=True)
    assert speech.message.content is None


def test_without_tools_text_stays_as_it_is() -> None:
    speech = tools.speech(_body(tools=None))
    text = '  <tool_call>\n{"name": "stop", "arguments": {}} '
    assert speech.feed(text, last=True) == [Delta(content=text)]
    assert (speech.message.content, speech.reason("stop")) == (text, "stop")
    assert msgspec.to_builtins(speech.message) == {"role": "assistant", "content": text}
