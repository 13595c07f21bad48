"""OpenAI's bodies under ``/v1`` on the socket: requests, replies and stream chunks, with our ``edge`` object in them.

After OpenAI's API reference; ``ignore_eos`` and ``cache_prompt`` are llama-server's. Null is the default wherever
a default is. Unknown fields are accepted here; the daemon refuses those that it knows to change the output.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from edge_runtime.protocol import EdgeReport, EdgeRequest, Text, Wire

# ---- /v1/chat/completions and /v1/completions ----------------------------------------------------------------------


class TextPart(Wire, frozen=True, kw_only=True):
    type: Literal["text"]
    text: str


class Message(Wire, frozen=True, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        match self.content:
            case None:
                return ""
            case str(text):
                return text
            case parts:
                return "".join(part.text for part in parts)


class StreamOptions(Wire, frozen=True, kw_only=True):
    include_usage: bool | None = None


class Sampling(Wire, frozen=True, kw_only=True):
    """The fields that chat and plain completions share."""

    model: Annotated[str, Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    ignore_eos: bool | None = None  # llama-server's extension; false
    cache_prompt: bool | None = None  # llama-server's extension; true
    user: str | None = None
    edge: EdgeRequest | None = None


class ChatRequest(Sampling, frozen=True, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class CompletionRequest(Sampling, frozen=True, kw_only=True):
    prompt: str
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None


class Usage(Wire, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(Wire, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(Wire, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = field(default_factory=list)


class Logprobs(Wire, frozen=True, kw_only=True):
    content: list[TokenLogprob]


FinishReason = Literal["stop", "length"]


class AssistantMessage(Wire, frozen=True, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChatChoice(Wire, frozen=True, kw_only=True):
    index: int
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: Logprobs | None = None


class ChatCompletion(Wire, frozen=True, kw_only=True):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    edge: EdgeReport
    object: Literal["chat.completion"] = "chat.completion"


class Delta(Wire, frozen=True, kw_only=True, omit_defaults=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(Wire, frozen=True, kw_only=True):
    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None


class ChatChunk(Wire, frozen=True, kw_only=True):
    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    edge: EdgeReport | UnsetType = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class CompletionLogprobs(Wire, frozen=True, kw_only=True):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None = None
    text_offset: list[int] = field(default_factory=list)


class CompletionChoice(Wire, frozen=True, kw_only=True):
    index: int
    text: str
    finish_reason: FinishReason | None
    logprobs: CompletionLogprobs | None = None


class Completion(Wire, frozen=True, kw_only=True):
    """A whole completion, and (without ``usage`` until the last) each chunk of a streamed one."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    edge: EdgeReport | UnsetType = UNSET
    object: Literal["text_completion"] = "text_completion"


# ---- /v1/embeddings, /v1/models ------------------------------------------------------------------------------------


class EmbeddingsRequest(Wire, frozen=True, kw_only=True):
    model: Annotated[str, Meta(min_length=1)]
    input: Text | Annotated[list[Text], Meta(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


class Embedding(Wire, frozen=True, kw_only=True):
    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingsUsage(Wire, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class Embeddings(Wire, frozen=True, kw_only=True):
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
    object: Literal["list"] = "list"


class ModelCard(Wire, frozen=True, kw_only=True):
    id: str
    created: int
    owned_by: str = "edge"
    object: Literal["model"] = "model"


class ModelList(Wire, frozen=True, kw_only=True):
    data: list[ModelCard]
    object: Literal["list"] = "list"
