"""The writers that are installed here, and how much memory each would take. Reads the disk: call it from threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.config import Config
from edge_runtime.daemon.footprint import footprint
from edge_runtime.engine import gguf
from edge_runtime.errors import ModelFileError, ModelNotFoundError
from models.catalog import Kind
from models.errors import DamagedFileError, ModelError, NotInstalledError
from models.store import Store


@dataclass(slots=True)
class Stock:
    """``root`` is the model store."""

    config: Config
    root: Path
    _sizes: dict[Path, int] = field(default_factory=dict)  # the store names a file by its digest

    def names(self, kind: Kind = "writer") -> list[str]:
        """What is installed, and whole as far as a look at the files tells."""
        store = self._store()
        return [name for name in store.names() if self._kind(store, name) == kind]

    def size(self, name: str) -> int:
        """Bytes that an engine with the writer ``name`` takes.

        Raises:
            ModelNotFoundError: it is not installed, or no writer; the message names those that are.
            ModelFileError: its file is damaged.
        """
        store = self._store()
        try:
            # The name may be anything that a client sent: only those of the store become part of a path.
            known = name in store.names() and store.get(name).kind == "writer"
            path = store.writer_path(name) if known else None
        except (DamagedFileError, NotInstalledError) as error:
            raise ModelFileError(str(error)) from error
        if path is None:
            here = ", ".join(self.names()) or "none"
            raise ModelNotFoundError(
                f"{name} is no writer that is here; this box has {here}; fetch another with: edge model pull NAME",
                param="model",
            )
        if path not in self._sizes:
            self._sizes[path] = self._measure(store, name, path)
        return self._sizes[path]

    def _measure(self, store: Store, name: str, path: Path) -> int:
        found = footprint(gguf.outline(path), weights=path.stat().st_size, context=self.config.engine.context)
        if found is not None:
            return found
        try:
            return store.entry(name).memory_bytes
        except ModelError as error:
            raise ModelFileError(str(error)) from error

    def _store(self) -> Store:
        return Store(self.root, self.config.models.quota_bytes)

    def _kind(self, store: Store, name: str) -> Kind | None:
        try:
            return store.get(name).kind
        except ModelError:
            return None
