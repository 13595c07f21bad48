"""Replies of a daemon, one of each kind, as the tests of client and CLI script them."""

from __future__ import annotations

import msgspec

from edge_runtime import (
    adapter_protocol,
    engine_protocol,
    knowledge_protocol,
    model_protocol,
    openai_protocol,
    protocol,
)

ADAPTER = adapter_protocol.Adapter(
    name="pumps",
    base="smollm2-135m-instruct",
    architecture="llama",
    rank=8,
    size=2_220_320,
    sha256="ab" * 32,
    added=1.5e9,
)
LISTED_ADAPTER = adapter_protocol.ListedAdapter(**msgspec.structs.asdict(ADAPTER), base_installed=True)
MODEL = model_protocol.ModelState(
    name="smollm2-135m-instruct",
    state="ready",
    default=False,
    pinned=True,
    active=0,
    idle_s=12.5,
    memory_bytes=285_007_872,
    fits=True,
    adapters=["pumps"],
)
CITATION = knowledge_protocol.Citation(
    document="pump.md",
    document_id="d1",
    locator=knowledge_protocol.Locator(start=120, end=160, heading="Alarms"),
    quote="E17: low suction pressure at the pump.",
)
SECOND = knowledge_protocol.Citation(
    document="log [2026].pdf",
    document_id="d2",
    locator=knowledge_protocol.Locator(start=10, end=52, page=3),
    quote="The strainer was blocked when E17 came up.",
)
SOURCES = knowledge_protocol.Sources(id="a1", citations=[SECOND, CITATION])
SENTENCES = [
    knowledge_protocol.Sentence(text="E17 means low suction pressure.", citations=[1]),
    knowledge_protocol.Sentence(text="A blocked strainer was the cause once.", citations=[0, 1]),
]
ANSWER = knowledge_protocol.Answer(
    id="a1",
    status="done",
    answer="E17 means low suction pressure. A blocked strainer was the cause once.",
    citations=[CITATION, SECOND],
    grounded=True,
    route="knowledge",
    sensitivity="internal",
    model="smollm2-135m-instruct",
    cached_age_s=None,
    timings_ms={"total": 84.0},
    confidence=0.91,
)
DECLINED = knowledge_protocol.Answer(
    id="a2",
    status="done",
    answer="The documents do not say.",
    citations=[],
    grounded=False,
    route="knowledge",
    sensitivity="internal",
    model=None,
    cached_age_s=None,
    timings_ms={"total": 12.0},
    confidence=0.08,
)
DOCUMENT = knowledge_protocol.Document(
    id="d1",
    name="pump.md",
    collection="default",
    format="markdown",
    sha256="0" * 64,
    characters=5120,
    chunks=7,
    pages=None,
    added=1_760_000_000.0,
)
STATUS = protocol.Status(
    ready=True,
    version="0.1.0",
    protocol="1",
    uptime_s=93_784.0,
    home="/var/lib/edge",
    socket="/var/lib/edge/run/edged.sock",
    listen=None,
    writer="smollm2-135m-instruct",
    embedder="all-minilm-l6-v2-int8",
    context=4096,
    seal=protocol.SealStatus(sealed=True, seccomp=True, landlock_abi=7, missing=[]),
    children=[
        protocol.ChildStatus(name="engine", state="ready", pid=11, restarts=0, model="smollm2-135m-instruct"),
        protocol.ChildStatus(name="embedder", state="ready", pid=12, restarts=0, model="all-minilm-l6-v2-int8"),
    ],
    documents=1,
    chunks=7,
    requests_running=1,
    requests_waiting=0,
    memory_bytes=600 * 2**20,
    memory_budget_bytes=2**30,
    threads=2,
)
PROOF = protocol.SealProof(
    attempts=[
        protocol.SealAttempt(process="edged", route="TCP", refused=True, detail="EPERM"),
        protocol.SealAttempt(process="engine", route="UDP", refused=True, detail="EPERM"),
    ]
)
CHAT = openai_protocol.ChatCompletion(
    id="c1",
    created=1,
    model="m",
    choices=[
        openai_protocol.ChatChoice(
            index=0, message=openai_protocol.AssistantMessage(content="hello"), finish_reason="stop"
        )
    ],
    usage=openai_protocol.Usage(prompt_tokens=3, completion_tokens=1, total_tokens=4),
    edge=protocol.EdgeReport(cache=protocol.CacheReport(hit_tokens=0, tier="none")),
)
CHUNKS = [
    openai_protocol.ChatChunk(
        id="c1",
        created=1,
        model="m",
        choices=[openai_protocol.ChunkChoice(index=0, delta=openai_protocol.Delta(content=text), finish_reason=reason)],
    )
    for text, reason in (("hel", None), ("lo", "stop"))
]
ENGINE = engine_protocol.EngineReport(
    at=100.0,
    engines=[
        engine_protocol.EngineState(
            model="smollm2-135m-instruct",
            state="ready",
            waiting={"realtime": 0, "interactive": 1, "batch": 4},
            running={"realtime": 1, "interactive": 2, "batch": 0},
            parked=1,
            cells_used=1500,
            cells_total=4096,
            cache_bytes=12 * 2**20,
            reused={"live": 600, "memory": 50, "disk": 0},
            prefilled=900,
            threads=2,
            prefill_ms=2.5,
            step_ms=17.4,
            resident=700 * 2**20,
        )
    ],
    latency={
        "interactive": engine_protocol.Latency(
            first_p50_ms=80.0, first_p95_ms=210.0, between_p50_ms=18.0, between_p95_ms=95.0
        )
    },
    written=4200,
    refused={"queue_full": 3},
    resident=900 * 2**20,
    budget=2**31,
    requests=[
        protocol.RunningRequest(
            id=f"req-{number}",
            kind="chat",
            peer="uid 1000",
            priority="interactive",
            state="running",
            age_s=1.5,
            tokens=number,
        )
        for number in range(3)
    ],
)
SCORES = engine_protocol.ScoreReply(
    id="s1",
    model="smollm2-135m-instruct",
    choices=[
        engine_protocol.ScoredChoice(text="mechanical", logprob=-3.5, probability=0.75, tokens=2),
        engine_protocol.ScoredChoice(text="electrical", logprob=-4.0, probability=0.25, tokens=2),
    ],
    best=0,
    calibrated=True,
    edge=protocol.EdgeReport(cache=protocol.CacheReport(hit_tokens=20, tier="live")),
)

EXPORTED = knowledge_protocol.Exported(
    path="/var/lib/edge/exports/site.index",
    size=917_504,
    sha256="ab" * 32,
    documents=7,
    collections=["pumps", "valves"],
    embedder="all-minilm-l6-v2-int8@sha256-81",
)
MOUNT = knowledge_protocol.Mount(
    name="vendor",
    collections=["vendor-pumps", "vendor-valves"],
    sha256="ab" * 32,
    size=917_504,
    documents=7,
    embedder="all-minilm-l6-v2-int8@sha256-81",
)
BROKEN_MOUNT = msgspec.structs.replace(MOUNT, name="old", trouble="its file is gone; unmount it")
INDEX = knowledge_protocol.IndexReport(
    documents=7,
    chunks=70,
    windows=210,
    sentences=700,
    coverage=1.0,
    embedder="all-minilm-l6-v2-int8@sha256-81",
    embedder_now="all-minilm-l6-v2-int8@sha256-81",
    file_bytes=2_097_152,
    free_bytes=1024,
    scan_bytes=100_000,
    scan_ready=True,
    epoch=12,
)
