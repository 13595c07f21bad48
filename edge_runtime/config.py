"""One frozen configuration from one TOML file; every default works with no file at all."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from edge_runtime.errors import ConfigError

Sensitivity = Literal["public", "internal", "confidential", "secret"]


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be, both ends included."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    writer: str = "qwen2.5-coder-0.5b-instruct"  # catalogue name of the generating model
    embedder: str = "all-minilm-l6-v2-int8"  # catalogue name of the embedding model
    reranker: str = ""  # catalogue name of a cross-encoder; empty: none is loaded
    quota_bytes: int = 20 * 2**30  # bytes; the model store refuses to grow past this


@dataclass(frozen=True, slots=True)
class ItlConfig:
    """Milliseconds between two tokens that a stream of each class may count on while prompts are read beside it."""

    realtime: Annotated[float, Range(1, 60_000)] = 100.0
    interactive: Annotated[float, Range(1, 60_000)] = 100.0
    batch: Annotated[float, Range(1, 60_000)] = 100.0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    context: Annotated[int, Range(1, 2**24 - 1)] = 4096  # tokens of KV cache, of all requests together
    threads: Annotated[int, Range(0, 512)] = 0  # at most; 0: the number of cores this process may use
    queue: Annotated[int, Range(0, 4096)] = 64  # requests that wait, beside those that write, before 429
    max_tokens: Annotated[int, Range(1, 2**31 - 1)] = 512  # tokens, where a request names no limit
    slots: Annotated[int, Range(1, 128)] = 16  # requests that write at once
    per_user: Annotated[int, Range(1, 4096)] = 32  # requests of one user that run or wait, the owner's excepted
    embeddings: Annotated[int, Range(1, 4096)] = 64  # requests to /v1/embeddings that run or wait before 429
    itl_target_ms: ItlConfig = field(default_factory=ItlConfig)
    cache_bytes: int = 128 * 2**20  # host memory for prompts that were read before
    snapshot_bytes: int = 512 * 2**20  # disk for them
    public_prefixes: tuple[str, ...] = ()  # system prompts that all users may share
    pinned: tuple[str, ...] = ()  # models that are never unloaded, beside models.writer
    idle_seconds: float = 300.0  # a model that was loaded on demand is unloaded after this
    silence_seconds: float = 20.0  # an engine that has work and is silent so long is killed and started again; 0: none


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    budget_bytes: int = 0  # all processes together (PSS); 0: what the machine or its control group allows


@dataclass(frozen=True, slots=True)
class KnowledgeConfig:
    # With its two marks, what MiniLM reads in one window; longer chunks found the right paragraph less often.
    chunk_tokens: int = 600  # word pieces at most in a chunk
    chunk_overlap: int = 50  # word pieces shared by neighbours within one section
    parse_memory_bytes: int = 1 * 2**30  # address space of the parsing child
    parse_seconds: int = 60  # CPU and wall seconds of the parsing child
    document_bytes: int = 64 * 2**20  # largest document accepted
    text_chars: int = 20_000_000  # longest text taken from one document
    confidence: float = 0.5  # an answer below this calibrated probability is declined
    questions: Annotated[int, Range(1, 4096)] = 64  # questions and searches that run or wait before 429


@dataclass(frozen=True, slots=True)
class ServerConfig:
    body_bytes: int = 80 * 2**20  # largest request body (a document in base64 must fit)
    header_seconds: float = 10.0  # a request's head must have arrived by then
    body_seconds: float = 60.0  # and its body
    stall_seconds: float = 30.0  # a client that does not read its stream is dropped after this
    drain_seconds: float = 10.0  # a graceful stop waits this long for running requests


@dataclass(frozen=True, slots=True)
class Config:
    models: ModelsConfig = field(default_factory=ModelsConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    knowledge: KnowledgeConfig = field(default_factory=KnowledgeConfig)
    server: ServerConfig = field(default_factory=ServerConfig)


def load(path: Path) -> Config:
    """Read ``path``; a missing file gives the defaults.

    Raises:
        ConfigError: not TOML, an unknown key (with the nearest known one), or a value of the wrong type or
            out of its range.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    config: Config = _build(Config, raw, str(path), "")
    return config


def _build(kind: Any, raw: dict[str, Any], path: str, prefix: str) -> Any:
    hints = get_type_hints(kind, include_extras=True)
    names = [item.name for item in fields(kind)]
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known keys: {', '.join(names)}"
            raise ConfigError(f"{path}: unknown key {prefix}{key}{hint}")
        values[key] = _value(hints[key], value, path, f"{prefix}{key}")
    return kind(**values)


def _value(hint: Any, value: Any, path: str, key: str) -> Any:
    if get_origin(hint) is Annotated:
        plain, allowed = get_args(hint)
        value = _value(plain, value, path, key)
        if not allowed.least <= value <= allowed.most:
            raise ConfigError(f"{path}: {key} is {value}; give a number from {allowed.least} to {allowed.most}")
        return value
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {key} must be a table, as in [{key}]")
        return _build(hint, value, path, f"{key}.")
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{path}: {key} must be one of {', '.join(get_args(hint))}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{path}: {key} must be a list of strings")
        return tuple(value)
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{path}: {key} must be of type {hint.__name__}, not {type(value).__name__}")
    if hint in (int, float) and value < 0:
        raise ConfigError(f"{path}: {key} must not be negative")
    return value
