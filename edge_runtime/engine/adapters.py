"""LoRA adapters of one loaded model: opened under a name, and put in place for the steps that want one.

llama.cpp applies an adapter to a whole context, never to a sequence: whoever batches puts requests of one adapter
together. Switching costs a new plan of the graph (:meth:`Adapters.use`).
"""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from edge_runtime.engine import lora
from edge_runtime.engine.llama import Llama, binding, journal
from edge_runtime.errors import ModelFileError, RequestError


@dataclass(frozen=True, slots=True)
class _Opened:
    handle: Any  # llama_adapter_lora *
    digest: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that llama.cpp may see."""

    path: Path
    digest: str
    architecture: str


def check(path: Path, digest: str) -> Checked:
    """Read all of the adapter ``path``, whose SHA-256 is ``digest``; in any thread, for this takes its time.

    Raises:
        ModelFileError: the file is missing, damaged, no adapter, or another one.
    """
    made_for = lora.read(path)
    if _digest(path) != digest:
        raise ModelFileError(f"the adapter's file {path.name} has changed since it was added; add the adapter again")
    lora.check_values(path)
    return Checked(path, digest, made_for.architecture)


class Adapters:
    """The adapters of ``model``; its weights own them, so nothing here may be called once it is closed."""

    def __init__(self, model: Llama) -> None:
        self._c = binding()
        self._model = model
        self._opened: dict[str, _Opened] = {}
        self._in_use: WeakKeyDictionary[Llama, str] = WeakKeyDictionary()

    def attach(self, name: str, checked: Checked) -> None:
        """Open what :func:`check` has let through as ``name``, in place of another file of that name.

        Raises:
            ModelFileError: the adapter is for another base, or its file is gone.
        """
        if self.has(name, checked.digest):
            return
        architecture = self._model.metadata("general.architecture")
        if checked.architecture != architecture:
            raise ModelFileError(
                f"the adapter {name} is for models of architecture {checked.architecture}, and this one is "
                f"{architecture}; choose the model that it was trained on"
            )
        journal().last_error = ""
        handle = self._c.llama_adapter_lora_init(self._model.model, str(checked.path).encode())
        if not handle:
            detail = journal().last_error or "llama.cpp gives no reason"
            raise ModelFileError(f"the adapter {name} does not fit this model: {detail}; choose one made for it")
        self.detach(name)
        self._opened[name] = _Opened(handle, checked.digest)

    def has(self, name: str, digest: str) -> bool:
        """Whether the file with this digest is attached under this name."""
        return name in self._opened and self._opened[name].digest == digest

    def detach(self, name: str) -> None:
        """Free it; a context that uses it goes back to the bare model. A name that is not attached is fine."""
        opened = self._opened.pop(name, None)
        if opened is None:
            return
        for context, used in list(self._in_use.items()):
            if used == name:
                if context.handle:  # one that was closed is nobody's any more
                    self._set(context, None)
                self._in_use[context] = ""
        self._c.llama_adapter_lora_free(opened.handle)

    def use(self, name: str, context: Llama | None = None) -> None:
        """Compute with adapter ``name`` (empty: none) in ``context`` (None: the model's own), from the next step on.

        Nothing happens where it is in use already. KV cells know nothing of it: those that were computed under another
        adapter must not be continued.

        Raises:
            RequestError: no adapter of this name is attached.
        """
        context = context or self._model
        if self._in_use.get(context, "") == name:
            return
        self._set(context, self._find(name).handle if name else None)
        self._in_use[context] = name

    def digest(self, name: str) -> str:
        """What a cache must know of adapter ``name``; empty for none. Raises as :meth:`use`."""
        return self._find(name).digest if name else ""

    def __contains__(self, name: str) -> bool:
        return name in self._opened

    def _find(self, name: str) -> _Opened:
        if name not in self._opened:
            known = ", ".join(sorted(self._opened)) or "none"
            raise RequestError(f"the adapter {name} is not attached (those that are: {known})", param="edge.adapter")
        return self._opened[name]

    def _set(self, context: Llama, handle: Any) -> None:
        if handle is None:
            self._c.llama_set_adapters_lora(context.handle, None, 0, None)
            return
        adapters = (self._c.llama_adapter_lora_p_ctypes * 1)(handle)
        scales = (ctypes.c_float * 1)(1.0)  # alpha / rank, from the file, comes on top
        self._c.llama_set_adapters_lora(context.handle, adapters, 1, scales)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}); add the adapter again") from error
