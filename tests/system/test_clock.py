"""The wall clock jumps a day ahead and two days back under a box at work: nothing that waits may notice.

The box's processes are given a clock of their own: a library before libc's that adds an offset, which the test changes.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from models.store import Store
from tests.box import Box, Reply, SentEvent, prepared

CHAT = "/v1/chat/completions"
DAY = 86_400  # seconds
LONG = {"model": "default", "messages": [{"role": "user", "content": "Go on."}], "ignore_eos": True}

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static long *page; /* seconds to add; how many processes have this library */

__attribute__((constructor)) static void begin(void) {
    page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, open(getenv("CLOCK_PAGE"), O_RDWR | O_CLOEXEC), 0);
    if (page == MAP_FAILED) abort();
    __atomic_fetch_add(page + 1, 1, __ATOMIC_SEQ_CST);
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, out);
    if (page && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) out->tv_sec += page[0];
    return status;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """The wall clock of the processes that are started with :attr:`environment`."""

    def __init__(self, directory: Path) -> None:
        library, source, page = directory / "clock.so", directory / "clock.c", directory / "clock.page"
        source.write_text(_SHIM)
        page.write_bytes(bytes(4096))
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        with page.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 4096)
        self.environment = {"LD_PRELOAD": os.fspath(library), "CLOCK_PAGE": os.fspath(page)}

    def jump(self, seconds: int) -> None:
        """Be so far ahead of the true time from now on."""
        struct.pack_into("=q", self._page, 0, seconds)

    @property
    def processes(self) -> int:
        """How many processes were ever started with it."""
        (count,) = struct.unpack_from("=q", self._page, 8)
        return int(count)

    def told_by(self, box: Box) -> int:
        """Days by which what the box says is ahead."""
        created = box.chat(max_tokens=1).json["created"]
        assert isinstance(created, int)
        return round((created - time.time()) / DAY)


@pytest.fixture
def skewed(shared_store: Store) -> Iterator[tuple[Box, Clock]]:
    with prepared(shared_store.root) as box:
        clock = Clock(box.home)  # where edged, sealed, starts its children, it may read
        box.start(environment=clock.environment)
        assert clock.processes >= 3
        yield box, clock
        assert box.stop() == 0


def _chunks(events: Iterator[SentEvent]) -> list[Any]:
    return [event.json for event in events if event.data != "[DONE]"]


def _overtaken(box: Box, clock: Clock, jump: int) -> Reply:
    """The reply to a request whose deadline passes behind a jump; the engine stands still, so that it does pass."""
    engine, running = box.child("engine")["pid"], box.status()["requests_running"]
    replies: list[Reply] = []
    asking = threading.Thread(target=lambda: replies.append(box.chat(max_tokens=1, edge={"deadline_ms": 5000})))
    os.kill(engine, signal.SIGSTOP)
    try:
        asking.start()
        box.wait(lambda: len(box.get("/edge/v1/requests").json["requests"]) == running + 1)
        clock.jump(jump)
        asking.join()
    finally:
        os.kill(engine, signal.SIGCONT)
    (reply,) = replies
    return reply


def test_streams_and_deadlines_do_not_notice_that_the_clock_jumps(skewed: tuple[Box, Clock]) -> None:
    box, clock = skewed
    children = [(child["pid"], child["state"]) for child in box.status()["children"]]
    stream = box.stream(CHAT, {**LONG, "stream": True, "max_tokens": 800, "edge": {"deadline_ms": 600_000}})
    parts = _chunks(islice(stream, 5))
    clock.jump(DAY)
    parts += _chunks(islice(stream, 5))
    assert clock.told_by(box) == 1
    reply = _overtaken(box, clock, -DAY)
    assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
    assert "passed" in reply.error["message"]
    assert box.status()["requests_running"] == 1
    parts += _chunks(islice(stream, 5))
    assert clock.told_by(box) == -1
    assert box.post("/v1/embeddings", {"model": "default", "input": "pump"}).status == 200
    parts += _chunks(stream)
    assert not [part for part in parts if "error" in part]
    assert [part["choices"][0]["finish_reason"] for part in parts if part["choices"]][-1] == "length"
    assert {type(part["created"]) for part in parts} == {int}
    assert len({part["created"] for part in parts}) == 1
    assert [(child["pid"], child["state"]) for child in box.status()["children"]] == children
    assert box.status()["requests_running"] == 0
