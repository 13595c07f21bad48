"""Who a peer is, and the table of what it may do."""

from __future__ import annotations

import os
import socket
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.peers import Action, Household, Token, Uid, local_host, tcp_peer, unix_peer
from edge_runtime.errors import AuthenticationError, PermissionDeniedError

HOUSE = Household(owner=1000, group=50)
ids = st.integers(min_value=0, max_value=2**32 - 2)


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        (Uid(0, frozenset({0})), {"look", "ask", "administer"}),
        (Uid(1000, frozenset({1000})), {"look", "ask", "administer"}),
        (Uid(1001, frozenset({1001, 50})), {"look", "ask"}),
        (Uid(1001, frozenset({1001})), set()),
        (Token(), {"look", "ask"}),
    ],
)
def test_the_table_says_what_each_kind_of_peer_may_do(peer: Uid | Token, allowed: set[Action]) -> None:
    assert {action for action in get_args(Action) if HOUSE.allowed(peer, action)} == allowed


@given(ids, st.frozensets(ids, max_size=8))
def test_nobody_but_root_and_the_owner_administers(uid: int, groups: frozenset[int]) -> None:
    assert HOUSE.allowed(Uid(uid, groups), "administer") == (uid in (0, 1000))


def test_a_refusal_names_who_can_help() -> None:
    with pytest.raises(PermissionDeniedError, match="uid 1000"):
        HOUSE.check(Token(), "administer")
    with pytest.raises(PermissionDeniedError, match="group 50"):
        HOUSE.check(Uid(7, frozenset({7})), "ask")


def test_the_kernel_names_the_user_and_all_groups_of_a_unix_peer() -> None:
    one, other = socket.socketpair()
    with one, other:
        peer = unix_peer(one)
    assert peer.uid == os.getuid()
    assert peer.groups >= {os.getgid(), *os.getgroups()}


@pytest.mark.parametrize(
    "given_header", [None, "", "Bearer", "Basic abc", "Bearer wrong", "Bearer secre", "bearersecret"]
)
def test_a_tcp_client_without_the_token_is_refused(given_header: str | None) -> None:
    with pytest.raises(AuthenticationError):
        tcp_peer(given_header, "127.0.0.1:8080", "secret")


def test_a_tcp_client_with_the_token_is_a_token_peer() -> None:
    assert tcp_peer("Bearer secret", "localhost:8080", "secret") == Token()


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "evil.example:80", "127.0.0.1.evil.example", "[fe80::1]:80"]
)
def test_a_page_of_a_rebound_name_is_refused(host: str | None) -> None:
    with pytest.raises(PermissionDeniedError):
        tcp_peer("Bearer secret", host, "secret")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8080", "[::1]"])
def test_the_loopback_interface_is_local_under_each_of_its_names(host: str) -> None:
    assert local_host(host)
