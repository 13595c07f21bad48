"""OpenAI's bodies under ``/v1`` on the socket: requests, replies and stream chunks, with our ``edge`` object in them.

After OpenAI's API reference; ``ignore_eos`` and ``cache_prompt`` are llama-server's. Null is the default wherever
a default is. Unknown fields are accepted here; the daemon refuses those that it knows to change the output.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from edge_runtime.protocol import EdgeReport, EdgeRequest, Text, Wire

# ---- /v1/chat/completions and /v1/completions ----------------------------------------------------------------------


class TextPart(Wire, frozen=True, kw_only=True):
    type: Literal["text"]
    text: str


class FunctionCall(Wire, frozen=True, kw_only=True):
    name: str
    arguments: str  # JSON


class ToolCall(Wire, frozen=True, kw_only=True):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class Message(Wire, frozen=True, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None  # of an assistant
    tool_call_id: str | None = None  # of a tool: which call this is the result of

    @property
    def text(self) -> str:
        match self.content:
            case None:
                return ""
            case str(text):
                return text
            case parts:
                return "".join(part.text for part in parts)


class Function(Wire, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: Any = None  # a JSON Schema; none: no arguments
    strict: bool | None = None  # arguments always follow the schema


class Tool(Wire, frozen=True, kw_only=True):
    function: Function
    type: Literal["function"] = "function"


class FunctionName(Wire, frozen=True, kw_only=True):
    name: str


class NamedTool(Wire, frozen=True, kw_only=True):
    function: FunctionName
    type: Literal["function"] = "function"


class JsonSchema(Wire, frozen=True, kw_only=True):
    schema: Any = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None  # answers always follow the schema


class TextFormat(Wire, frozen=True, kw_only=True, tag_field="type", tag="text"):
    pass


class ObjectFormat(Wire, frozen=True, kw_only=True, tag_field="type", tag="json_object"):
    schema: Any = None  # llama-server's


class SchemaFormat(Wire, frozen=True, kw_only=True, tag_field="type", tag="json_schema"):
    json_schema: JsonSchema


class StreamOptions(Wire, frozen=True, kw_only=True):
    include_usage: bool | None = None


MOST = 2**31 - 1  # of counts: what llama.cpp's integers hold
StopText = Annotated[str, Meta(max_length=256)]


class Sampling(Wire, frozen=True, kw_only=True):
    """The fields that chat and plain completions share."""

    model: Annotated[str, Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, le=MOST)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=MOST)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=16)] | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    ignore_eos: bool | None = None  # llama-server's extension; false
    cache_prompt: bool | None = None  # llama-server's extension; true
    response_format: TextFormat | ObjectFormat | SchemaFormat | None = None
    json_schema: Any = None  # llama-server's: a JSON Schema
    guided_json: Any = None  # vLLM's: the same, or its text
    user: str | None = None
    edge: EdgeRequest | None = None


class ChatRequest(Sampling, frozen=True, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Meta(ge=1, le=MOST)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=64)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None


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


FinishReason = Literal["stop", "length", "tool_calls"]


class AssistantMessage(Wire, frozen=True, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str | None = ""  # null where the message is calls alone
    tool_calls: list[ToolCall] | UnsetType = UNSET


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


class FunctionDelta(Wire, frozen=True, kw_only=True, omit_defaults=True):
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET  # the next piece


class ToolCallDelta(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """The first of a call has its id, type and name; the others have pieces of its arguments."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta


class Delta(Wire, frozen=True, kw_only=True, omit_defaults=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


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
