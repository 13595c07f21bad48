"""What a child process is started with."""

from __future__ import annotations

from edge_runtime.daemon.child import environment


def test_how_threads_wait_is_decided_here_and_not_by_whoever_started_the_daemon() -> None:
    inherited = {"PATH": "/bin", "OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "9", "GOMP_SPINCOUNT": "INFINITY"}
    found = environment(inherited)
    assert found["PATH"] == "/bin"
    assert not [name for name in found if name.startswith(("OMP_", "KMP_"))]
    assert 1000 <= int(found["GOMP_SPINCOUNT"]) <= 20_000
    assert found["GGML_NO_BACKTRACE"] == "1"
