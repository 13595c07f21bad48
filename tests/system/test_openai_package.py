"""The official ``openai`` package over the socket, through nothing but its own transport."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest

from models.store import Store
from tests.box import Box, running
from tests.conftest import EMBEDDER, SMALL_WRITER

MESSAGES = [{"role": "user", "content": "Name one colour."}]


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        yield started


def connect(socket: Path) -> openai.OpenAI:
    transport = httpx2.HTTPTransport(uds=str(socket))
    http = httpx2.Client(transport=transport)
    return openai.OpenAI(base_url="http://edged/v1", api_key="none", http_client=http, max_retries=0)


@pytest.fixture
def client(box: Box) -> Iterator[openai.OpenAI]:
    with connect(box.socket) as connected:
        yield connected


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert {SMALL_WRITER, EMBEDDER} <= {model.id for model in client.models.list()}


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=SMALL_WRITER, messages=MESSAGES, max_tokens=8, temperature=0)
    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason in {"stop", "length"}
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_streamed_chat_says_what_the_whole_one_says(client: openai.OpenAI) -> None:
    asked = {"model": SMALL_WRITER, "messages": MESSAGES, "max_tokens": 8, "temperature": 0, "seed": 7}
    whole = client.chat.completions.create(**asked)
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_completion_goes_on_with_its_prompt(client: openai.OpenAI) -> None:
    reply = client.completions.create(model=SMALL_WRITER, prompt="One, two, three,", max_tokens=4, temperature=0)
    assert reply.choices[0].text


def test_log_probabilities_belong_to_the_tokens(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=SMALL_WRITER, messages=MESSAGES, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in logprobs.content)


def test_embeddings_are_the_same_as_floats_and_as_base64(client: openai.OpenAI) -> None:
    texts = ["low suction pressure", "a recipe for soup"]
    floats = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    packed = client.with_raw_response.embeddings.create(model=EMBEDDER, input=texts, encoding_format="base64")
    for plain, item in zip(floats.data, packed.http_response.json()["data"], strict=True):
        raw = base64.b64decode(item["embedding"])
        assert struct.unpack(f"<{len(raw) // 4}f", raw) == pytest.approx(plain.embedding, abs=1e-6)
        assert math.hypot(*plain.embedding) == pytest.approx(1, abs=1e-3)
    # The package asks for base64 by itself where no format is named, and unpacks it.
    assert client.embeddings.create(model=EMBEDDER, input=texts).data[0].embedding == pytest.approx(
        floats.data[0].embedding, abs=1e-6
    )


def test_an_unknown_model_is_the_packages_own_not_found_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert "no-such-model" in raised.value.message


def test_a_wrong_field_is_the_packages_own_bad_request_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=SMALL_WRITER, messages=MESSAGES, max_tokens=-1)
    assert raised.value.code == "invalid_request"


def test_leaving_a_stream_frees_the_engine(client: openai.OpenAI, box: Box) -> None:
    stream = client.chat.completions.create(
        model=SMALL_WRITER, messages=MESSAGES, max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    box.wait(lambda: box.get("/edge/v1/status").json["requests_running"] == 0)


async def _ask_asynchronously(socket: Path) -> str | None:
    transport = httpx2.AsyncHTTPTransport(uds=str(socket))
    http = httpx2.AsyncClient(transport=transport)
    async with openai.AsyncOpenAI(base_url="http://edged/v1", api_key="none", http_client=http) as client:
        reply = await client.chat.completions.create(model=SMALL_WRITER, messages=MESSAGES, max_tokens=4)
        return reply.choices[0].message.content


def test_the_asynchronous_package_works_the_same(box: Box) -> None:
    assert asyncio.run(_ask_asynchronously(box.socket))
