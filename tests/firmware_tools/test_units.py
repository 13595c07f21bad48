"""What the systemd units promise."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

import firmware_tools

UNITS = Path(firmware_tools.__file__).parent / "units"


def _unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / name).read_text("utf-8"))
    return parser


def test_daemon_and_courier_have_a_user_each() -> None:
    daemon, courier = _unit("edged.service")["Service"], _unit("edge-courier.service")["Service"]

    assert (daemon["User"], courier["User"]) == ("edge", "edge-courier")
    created = (UNITS / "edge.sysusers.conf").read_text("utf-8")
    assert all(f"\nu {service['User']} " in created for service in (daemon, courier))


def test_the_daemon_is_started_without_a_network() -> None:
    service = _unit("edged.service")["Service"]

    assert service["Type"] == "notify"
    assert service["PrivateNetwork"] == "yes"
    assert service["RestrictAddressFamilies"] == "AF_UNIX"


def test_the_courier_is_inert_until_it_is_configured() -> None:
    assert _unit("edge-courier.service")["Unit"]["ConditionPathExists"] == "/etc/edge/courier.toml"


@pytest.mark.parametrize("name", ["edged.service", "edge-courier.service"])
def test_every_service_gives_up_what_it_does_not_need(name: str) -> None:
    service = _unit(name)["Service"]

    for switch in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictNamespaces", "ProtectKernelTunables"):
        assert service[switch] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
