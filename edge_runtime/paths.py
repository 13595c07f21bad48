"""The only module that knows where things are on the box.

Everything a box owns lives under ``EDGE_HOME``; removing that directory removes the box's state.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

# sun_path holds 108 bytes with its terminator (unix(7)).
SOCKET_PATH_BYTES = 107
_SYSTEM_HOME = Path("/var/lib/edge")


def user_data_home() -> Path:
    """``$XDG_DATA_HOME/edge`` (XDG base directory specification 0.8)."""
    root = os.environ.get("XDG_DATA_HOME")
    return (Path(root) if root else Path.home() / ".local" / "share") / "edge"


@dataclass(frozen=True, slots=True)
class Paths:
    """Directories and files of one box, all below ``home``."""

    home: Path

    @classmethod
    def from_environment(cls) -> Paths:
        """``EDGE_HOME``, else the system service's home where it is ours to use, else the user's."""
        named = os.environ.get("EDGE_HOME")
        if named:
            return cls(Path(named).expanduser().absolute())
        if _SYSTEM_HOME.is_dir() and os.access(_SYSTEM_HOME, os.X_OK):
            return cls(_SYSTEM_HOME)
        return cls(user_data_home())

    @property
    def config(self) -> Path:
        """``EDGE_CONFIG``, else ``edge.toml`` in the home."""
        named = os.environ.get("EDGE_CONFIG")
        return Path(named).expanduser().absolute() if named else self.home / "edge.toml"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def socket(self) -> Path:
        """``EDGE_SOCKET``, else ``run/edged.sock``, else (too long for ``sun_path``) one in the runtime directory."""
        named = os.environ.get("EDGE_SOCKET")
        if named:
            return Path(named).expanduser().absolute()
        usual = self.run / "edged.sock"
        if len(os.fsencode(usual)) <= SOCKET_PATH_BYTES:
            return usual
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        runtime = os.environ.get("XDG_RUNTIME_DIR") or str(Path(tempfile.gettempdir()) / f"edge-{os.getuid()}")
        return Path(runtime) / f"edged-{digest}.sock"

    @property
    def lock(self) -> Path:
        """Held (flock) by the one daemon of this home."""
        return self.run / "edged.lock"

    @property
    def token(self) -> Path:
        """The bearer token for ``--listen``, mode 0600."""
        return self.run / "token"

    @property
    def models(self) -> Path:
        """The content-addressed model store (:mod:`models.store`)."""
        return self.home / "models"

    @property
    def adapters(self) -> Path:
        """LoRA adapters (:mod:`edge_runtime.daemon.adapters`), where the engine may read."""
        return self.models / "adapters"

    @property
    def index(self) -> Path:
        """The knowledge database: documents, chunks, vectors, full text."""
        return self.home / "index.db"

    @property
    def journal(self) -> Path:
        """The daemon's own database: feedback on answers."""
        return self.home / "journal.db"

    @property
    def snapshots(self) -> Path:
        """KV snapshots and other things derived from documents; safe to delete."""
        return self.home / "snapshots"

    @property
    def backups(self) -> Path:
        return self.home / "backups"

    @property
    def reembedded(self) -> Path:
        """The knowledge database as it is being embedded anew, until it takes the place of :attr:`index`."""
        return self.home / "index.next.db"

    @property
    def scan(self) -> Path:
        """The coarse copy of the index's vectors; safe to delete."""
        return self.home / "scan"

    @property
    def exports(self) -> Path:
        """Indexes that were exported, one file each."""
        return self.home / "exports"

    @property
    def mounts(self) -> Path:
        """Indexes that answer beside the box's own, and a record of each."""
        return self.home / "mounts"


def build_record(prefix: str) -> Path:
    """Where ``edge-firmware build-llama`` records which llama.cpp build ``sys.prefix`` holds."""
    return Path(prefix) / "share" / "edge" / "llama_build.json"
