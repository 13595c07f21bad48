"""The README runner itself: what it runs, and what it takes for the same output."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.house.console import Step, blocks, matches, program, run, steps

README = """
```console
$ echo one
one
$ echo two \\
>   three
two three
```

```sh
echo not run
```

```console
$ true
```

```python
print("quoted: 'x' $A")
```
"""


def test_console_blocks_alone_become_steps() -> None:
    assert list(steps(README)) == [Step("echo one", "one"), Step("echo two three", "two three"), Step("true", "")]


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a", "a\n", True),
        ("a", "b\n", False),
        ("a 1... b", "a 123 ms b", True),
        ("a\n...\nz", "a\nb\nc\nz\n", True),
        ("a\n...\nz", "a\nz\n", True),
        ("a\n...", "b\na\n", False),
        ("a.b", "axb", False),
    ],
)
def test_dots_stand_for_any_text(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same


def test_steps_share_one_shell_and_failures_are_told(tmp_path: Path) -> None:
    commands = [Step("A=1", ""), Step("echo $A", "1"), Step("false", ""), Step("echo x", "y"), Step("sleep 60 &", "")]
    outcomes = run(commands, directory=tmp_path, environment=os.environ, log=tmp_path / "log")
    assert [bool(outcome.complaint) for outcome in outcomes] == [False, False, True, True, False]


def test_a_program_runs_word_for_word_and_its_failure_is_told(tmp_path: Path) -> None:
    (shown,) = blocks(README, "python")
    commands = [program(shown), program("import nothing_of_the_kind\n"), Step("echo on", "on")]
    world = {**os.environ, "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    outcomes = run(commands, directory=tmp_path, environment=world, log=tmp_path / "log")
    assert outcomes[0].printed == "quoted: 'x' $A\n"
    assert [bool(outcome.complaint) for outcome in outcomes] == [False, True, False]


def test_a_shell_that_ends_early_is_a_failure(tmp_path: Path) -> None:
    outcomes = run(
        [Step("exit 0", ""), Step("true", "")], directory=tmp_path, environment=os.environ, log=tmp_path / "log"
    )
    assert [bool(outcome.complaint) for outcome in outcomes] == [True]
