"""The wheel as it would be installed: four top-level names, the data that the code reads, and scripts that exist."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.tree import PACKAGES, REPO


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    subprocess.run(command, cwd=REPO, check=True, capture_output=True)
    (built,) = target.glob("*.whl")
    return zipfile.ZipFile(built)


def test_wheel_holds_four_top_level_names(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == set(PACKAGES)


def test_wheel_holds_what_the_code_reads(wheel: zipfile.ZipFile) -> None:
    shipped = set(wheel.namelist())
    wanted = {"edge_runtime/samples", "models/catalog", "firmware_tools/units"}
    data = [
        path.relative_to(REPO).as_posix()
        for top in PACKAGES
        for path in (REPO / top).rglob("*")
        if path.is_file() and any(path.relative_to(REPO).as_posix().startswith(f"{folder}/") for folder in wanted)
    ]
    assert {name for folder in wanted for name in data if name.startswith(folder)} <= shipped
    assert all(any(name.startswith(f"{folder}/") for name in data) for folder in wanted)


def test_every_console_script_names_a_function_that_is_shipped(wheel: zipfile.ZipFile) -> None:
    (listing,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read(listing).decode())
    shipped = set(wheel.namelist())
    absent = []
    for script, target in scripts["console_scripts"].items():
        module, _, function = target.partition(":")
        path = f"{module.replace('.', '/')}.py"
        if path not in shipped or function not in wheel.read(path).decode():
            absent.append(f"{script} = {target}")
    assert not absent


def test_package_metadata_names_the_licence(wheel: zipfile.ZipFile) -> None:
    (listing,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    assert "License-Expression: Apache-2.0" in wheel.read(listing).decode()


def test_no_byte_code_is_shipped(wheel: zipfile.ZipFile) -> None:
    assert not [name for name in wheel.namelist() if Path(name).suffix in {".pyc", ".pyo"}]
