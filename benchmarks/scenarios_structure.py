"""JSON that must follow a schema: 200 varied schemas are kept to, 50 hostile ones refused, and nothing dies of them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import jsonschema

from benchmarks.box import Box
from benchmarks.hostile_schemas import hostile
from benchmarks.load import Exchange, Told, complete, completion, get
from benchmarks.schemas import Case, varied
from benchmarks.stage import Outcome, Row, Stage

TOKENS = 512
COMPLETE_BAR = 0.95
_AT_ONCE = 16
_PATIENCE_S = 300.0


def _body(case: Case) -> bytes:
    """A chat request; a hostile schema is JSON text already, since some cannot be written by Python's encoder."""
    schema = case.schema if isinstance(case.schema, str) else json.dumps(case.schema)
    fields = {
        "model": "default",
        "messages": [{"role": "user", "content": case.prompt or "Answer in JSON."}],
        "max_tokens": TOKENS,
        "temperature": 0,
    }
    outer = json.dumps(fields)[:-1]
    wanted = '"response_format": {"type": "json_schema", "json_schema": {"name": "case", "strict": true, "schema": '
    return f"{outer}, {wanted}{schema}}}}}}}".encode()


async def _ask_all(box: Box, cases: list[Case]) -> list[Told]:
    places = asyncio.Semaphore(_AT_ONCE)

    async def ask(case: Case) -> Told:
        async with places:
            return await (await Exchange.open(box.socket, "/v1/chat/completions", _body(case))).end(_PATIENCE_S)

    return list(await asyncio.gather(*(ask(case) for case in cases)))


def _fault(case: Case, told: Told) -> str:
    """What is wrong with a reply that is complete; empty: it is a document of the schema."""
    content = told.json["choices"][0]["message"]["content"]
    try:
        jsonschema.validate(json.loads(content), case.schema)
    except (ValueError, jsonschema.ValidationError) as error:
        return f"{case.name}: {str(error).splitlines()[0]}"
    return ""


async def _children(box: Box) -> list[tuple[str, int, int]]:
    """Name, process id and restarts of each child, and the daemon's own id before them."""
    told = (await get(box.socket, "/edge/v1/status")).json
    daemon = next(iter(box.processes()))
    return [("edged", daemon, 0), *((one["name"], one["pid"], one["restarts"]) for one in told["children"])]


async def structure(stage: Stage) -> Outcome:
    """``response_format`` with every schema; whether the processes are the same ones afterwards."""
    wanted, refused = list(varied()), list(hostile())
    wanted = wanted[::5] if stage.quick else wanted
    with stage.box() as box:
        before = await _children(box)
        told = await _ask_all(box, wanted)
        answers = await _ask_all(box, refused)
        after = await _children(box)
        serves = not (await complete(box.socket, completion(stage.text(20), 4))).error
    whole = [(case, one) for case, one in zip(wanted, told, strict=True) if _finish(one) == "stop"]
    faults = [fault for case, one in whole if (fault := _fault(case, one))]
    taken = [case.name for case, one in zip(refused, answers, strict=True) if one.status != 400]
    rows = [
        Row.least(f"{len(wanted)} schemas: complete in {TOKENS} tokens", len(whole) / len(wanted), COMPLETE_BAR),
        Row.most("complete ones that are not valid", len(faults), 0, note=f" of {len(whole)}"),
        Row.most("hostile schemas that were not refused with 400", len(taken), 0, note=f" of {len(refused)}"),
        Row("the same processes after them", "yes", "yes" if after == before else "no", after == before and serves),
    ]
    found: dict[str, Any] = {"faults": faults, "taken": taken, "children": {"before": before, "after": after}}
    found["ends"] = dict(Counter(_finish(one) or one.error or str(one.status) for one in told))
    found["incomplete"] = [case.name for case, one in zip(wanted, told, strict=True) if _finish(one) != "stop"]
    found["hostile_statuses"] = dict(Counter(one.status for one in answers))
    return Outcome(rows, found)


def _finish(told: Told) -> str:
    """Why the generation ended; empty where there was none."""
    choices = told.json.get("choices") if told.status == 200 else None
    return str(choices[0]["finish_reason"]) if choices else ""
