"""What the house tests look at: the repository's own files, parsed once."""

from __future__ import annotations

import ast
import functools
import subprocess
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("edge_runtime", "models", "firmware_tools", "fleet")


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file that is, or would be, committed."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={REPO}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return tuple(sorted(path for name in set(listed.split("\0")) if name and (path := REPO / name).is_file()))


def modules(*tops: str) -> dict[str, ast.Module]:
    """Parsed modules below the named top-level folders, by path within the repository."""
    found = {}
    for path in files():
        relative = path.relative_to(REPO)
        if path.suffix == ".py" and relative.parts[0] in tops:
            found[str(relative)] = _parse(path)
    return found


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


@functools.cache
def readmes() -> tuple[Path, ...]:
    return tuple(path for path in files() if path.name == "README.md")
