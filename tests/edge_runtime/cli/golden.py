"""Golden files: what ``--json`` of each command writes. ``EDGE_GOLDEN=write`` writes them anew instead of comparing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "golden"


def compare(name: str, value: Any) -> None:
    """Fails where ``value`` is not what ``golden/NAME.json`` holds."""
    file = _FOLDER / f"{name}.json"
    if os.environ.get("EDGE_GOLDEN") == "write":
        file.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    assert value == json.loads(file.read_text("utf-8"))
