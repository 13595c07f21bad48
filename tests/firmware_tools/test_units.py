"""What the systemd units promise."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
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


@pytest.mark.parametrize("name", ["edged.service", "edged.socket", "edge-courier.service"])
def test_systemd_takes_every_line_of_a_unit(name: str, tmp_path: Path) -> None:
    for unit in UNITS.glob("edge*.s*"):
        # The programs themselves are not installed here, and neither need the users be.
        text = re.sub(r"^(ExecStart(?:Pre)?)=.*$", r"\1=/bin/true", unit.read_text("utf-8"), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text, "utf-8")
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        # A machine without systemd can at least tell that every line is a section, a comment or an assignment.
        assert all(re.match(r"\[\w+\]$|#|\w+=|$", line) for line in (tmp_path / name).read_text("utf-8").splitlines())
        return
    done = subprocess.run([verifier, "verify", "--man=no", tmp_path / name], capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if "edge" in line]
    assert (done.returncode, told) == (0, [])
