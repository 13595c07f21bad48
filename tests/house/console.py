"""Runs the console blocks of a README in one shell, as a reader would type them, and compares what they print.

In expected output ``...`` stands for any text, and a line of ``...`` alone for any lines. A block with no output
expected only has to succeed. Knows nothing of what the commands do, except that ``edged &`` needs a moment to be ready.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "@@end-of-command@@"
_READY = "for _ in $(seq 120); do edge status >/dev/null 2>&1 && break; sleep 0.5; done"


@dataclass(frozen=True, slots=True)
class Step:
    """One command and the output shown below it."""

    command: str
    expected: str

    @property
    def runs_behind(self) -> bool:
        return self.command.endswith("&")


@dataclass(frozen=True, slots=True)
class Outcome:
    step: Step
    status: int
    printed: str

    @property
    def complaint(self) -> str:
        """Empty where the README told the truth."""
        if self.status != 0:
            return f"$ {self.step.command}\nended with {self.status}:\n{self.printed}"
        if self.step.expected and not matches(self.step.expected, self.printed):
            return f"$ {self.step.command}\nshould print:\n{self.step.expected}\nbut prints:\n{self.printed}"
        return ""


def blocks(readme: str, language: str) -> list[str]:
    """The text of every block in ``language``, in order."""
    return [text for name, text in _BLOCK.findall(readme) if name == language]


def program(text: str) -> Step:
    """A step that runs ``text`` as a Python program."""
    return Step(f"python - <<'END-OF-PROGRAM'\n{text}END-OF-PROGRAM", "")


def steps(readme: str) -> Iterator[Step]:
    """The commands of every console block, in order; a line of output belongs to the command above it."""
    for block in blocks(readme, "console"):
        command, output = "", list[str]()
        for line in block.splitlines():
            if command.endswith("\\"):
                command = command.removesuffix("\\") + line.removeprefix("> ").strip()
            elif line.startswith("$ "):
                if command:
                    yield Step(command, "\n".join(output))
                command, output = line.removeprefix("$ ").strip(), []
            else:
                output.append(line)
        if command:
            yield Step(command, "\n".join(output))


def matches(expected: str, printed: str) -> bool:
    """Whether ``printed`` is what ``expected`` shows; blank lines at the ends and spaces at line ends do not count."""
    pattern = ""
    for line in _trim(expected).split("\n"):
        if line.strip() == "...":
            pattern += r"(?:.*\n)*"
        else:
            pattern += ".*".join(re.escape(piece) for piece in line.split("...")) + r"\n"
    return re.fullmatch(pattern, _trim(printed) + "\n") is not None


def _trim(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def run(commands: list[Step], *, directory: Path, environment: Mapping[str, str], log: Path) -> list[Outcome]:
    """Run ``commands`` in one shell in ``directory``; what runs behind writes to ``log`` and ends with the shell."""
    script = ["trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
    for step in commands:
        if step.runs_behind:
            script.append(f"{step.command.removesuffix('&')} >>{shlex.quote(str(log))} 2>&1 &")
            if step.command.startswith("edged"):
                script.append(_READY)
        else:
            script.append(step.command)
        script.append(f'printf "\\n{_MARK}%d\\n" $?')
    ended = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=directory,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
    )
    parts = re.split(rf"\n{_MARK}(\d+)\n", ended.stdout)
    printed, statuses = parts[:-1:2], parts[1::2]
    if len(statuses) < len(commands):  # the shell itself ended: `exit` in a block, or a signal
        statuses.append(str(ended.returncode or 1))
        printed.append(parts[-1])
    return [Outcome(step, int(status), text) for step, status, text in zip(commands, statuses, printed, strict=False)]
