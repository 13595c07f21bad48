"""Documents are claims, and claims are tested: docstrings, help, the files a README names, the commands it shows."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edge_runtime import config
from edge_runtime.cli.main import edge
from models import catalog
from tests.house import console
from tests.house.tree import PACKAGES, REPO, modules, readmes

# Not in the repository: on a box, or data that others publish.
_ELSEWHERE = {"edge.toml", "squad2_normans.json", "clinc150_small.json"}
_FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*(?:/|\.(?:py|toml|md|txt|html|pdf|json|service|mk))|Makefile|LICENSE|\.ci/run")
# How one gets here, and what is running now.
_NOT_RUN = ("git clone", "cd ", "make test", "sudo ", "apt")


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{path} {name} is listed but not there"
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _named(text: str) -> set[str]:
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    quoted = [word for word in re.findall(r"`([^`\n]+)`", text) if _FILE.fullmatch(word)]
    return {*links, *quoted} - _ELSEWHERE


def test_every_module_opens_with_a_docstring() -> None:
    silent = [name for name, module in modules(*PACKAGES, "benchmarks", "tests").items() if _is_silent(name, module)]
    assert not silent


def _is_silent(name: str, module: ast.Module) -> bool:
    is_marker = name.startswith("tests/") and not module.body  # an empty __init__.py among the tests
    return not is_marker and not (ast.get_docstring(module) or "").strip()


def test_a_package_file_is_a_docstring_alone() -> None:
    busy = [
        name
        for name, module in modules(*PACKAGES).items()
        if name.endswith("__init__.py") and (len(module.body) != 1 or ast.get_docstring(module) is None)
    ]
    assert not busy


def test_every_package_has_a_readme() -> None:
    folders = {readme.parent.relative_to(REPO) for readme in readmes()}
    assert folders >= {Path(name) for name in (".", *PACKAGES, "benchmarks", "edge_runtime/samples")}


@pytest.mark.parametrize("readme", [str(path.relative_to(REPO)) for path in readmes()])
def test_every_file_that_a_readme_names_exists(readme: str) -> None:
    path = REPO / readme
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    missing = [name for name in _named(text) if not (path.parent / name).exists() and not (REPO / name).exists()]
    assert not missing


@pytest.mark.parametrize(
    ("path", "command"), [*_commands(edge, "edge")], ids=lambda value: str(value).replace(" ", "-")
)
def test_every_command_has_help_with_an_example(path: str, command: click.Command) -> None:
    words = f"{command.help or ''}\n{command.epilog or ''}"
    assert (command.help or "").strip()
    assert path in words.replace("\b", ""), f"`{path} --help` shows no example of itself"


def test_the_readme_prints_what_it_says(edge_home: Path, tmp_path: Path) -> None:
    readme = (REPO / "README.md").read_text("utf-8")
    commands = [step for step in console.steps(readme) if not step.command.startswith(_NOT_RUN)]
    # They come last: the daemon that a console block started still runs.
    programs = [console.program(text) for text in console.blocks(readme, "python")]
    assert programs
    commands += programs
    environment = {
        **os.environ,
        "EDGE_HOME": str(edge_home),
        "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "MODEL": "small",
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }
    outcomes = console.run(commands, directory=REPO, environment=environment, log=tmp_path / "behind.log")
    complaints = [outcome.complaint for outcome in outcomes if outcome.complaint]
    assert not complaints, "\n\n".join(complaints)
    assert len(outcomes) == len(commands)
    assert all(outcome.printed.strip() for outcome in outcomes[-len(programs) :]), (
        "a program of the README says nothing"
    )


def test_the_settings_that_the_readme_shows_are_taken(tmp_path: Path) -> None:
    settings = console.blocks((REPO / "README.md").read_text("utf-8"), "toml")
    assert settings
    for text in settings:
        (tmp_path / "edge.toml").write_text(text, "utf-8")
        wanted = config.load(tmp_path / "edge.toml").models
        assert (catalog.find(wanted.writer).kind, catalog.find(wanted.embedder).kind) == ("writer", "embedder")
