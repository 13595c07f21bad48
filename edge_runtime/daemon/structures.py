"""What the answer must be, from the request: ``response_format``, and the fields of llama-server and vLLM for the same.

Pure: bounds are checked here, before anything reaches the engine.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edge_runtime import openai_protocol
from edge_runtime.engine.schemas import narrow
from edge_runtime.engine.structure import encode
from edge_runtime.errors import RequestError


def read_structure(body: openai_protocol.Sampling, limit: int) -> str:
    """:attr:`Submit.structure` for an answer of at most ``limit`` tokens; empty: anything.

    Raises:
        RequestError: the schema is none, contradicts itself, is too large, or asks for what cannot be enforced.
    """
    found: list[tuple[str, Any]] = []
    match body.response_format:
        case openai_protocol.ObjectFormat(schema=schema):
            found.append(("response_format", {"type": "object"} if schema is None else schema))
        case openai_protocol.SchemaFormat(json_schema=given):
            if given.schema is None:
                raise RequestError("response_format.json_schema.schema is missing; add it", param="response_format")
            found.append(("response_format", given.schema))
    if body.json_schema not in (None, {}):
        found.append(("json_schema", body.json_schema))
    if body.guided_json is not None:
        found.append(("guided_json", _parsed(body.guided_json)))
    if not found:
        return ""
    ((param, schema), *others) = found
    if others:
        raise RequestError(f"{others[0][0]} stands beside {param}; send one of them", param=others[0][0])
    return encode(narrow(schema, tokens=limit, param=param))


def _parsed(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"guided_json is not JSON that can be read: {error}", param="guided_json") from None
