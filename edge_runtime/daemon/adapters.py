"""The LoRA adapters of this box: kept below the model store, chosen by name, handed to engines that need them.

    NAME.gguf   the adapter, as it was added
    NAME.json   its record; a file without one does not count

An engine knows an adapter by name and digest, so that another file under the same name is another adapter to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import msgspec

from edge_runtime.adapter_protocol import Adapter, AdapterAdded
from edge_runtime.daemon import logs
from edge_runtime.daemon.child import Child
from edge_runtime.daemon.engine import WAIT_SECONDS, Engine
from edge_runtime.daemon.pool import DEFAULT
from edge_runtime.engine import gguf, lora
from edge_runtime.engine.messages import Attach, Attached, Detach, Ready
from edge_runtime.errors import (
    EdgeError,
    EngineError,
    ModelFileError,
    ModelNotFoundError,
    NotFoundError,
    RefusedError,
    RequestError,
    StorageError,
)
from edge_runtime.protocol import EdgeRequest
from models import records

SEPARATOR = ":"  # between a model and an adapter, where one field names both


@dataclass(slots=True)
class _Life:
    """What one start of an engine was given; a lock, because it is given once."""

    ready: Ready
    names: set[str] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Adapters:
    """``base`` is the configured writer; ``weights`` finds the file of a writer, or raises :class:`ModelFileError`."""

    def __init__(self, root: Path, base: str, weights: Callable[[str], Path]) -> None:
        self._root = root
        _sweep(root)
        self._base = base
        self._weights = weights
        self._records = {record.name: record for record in _recorded(root)}
        self._changing = asyncio.Lock()
        self._lives: WeakKeyDictionary[Child, _Life] = WeakKeyDictionary()
        self._uses: Counter[str] = Counter()
        self._removed: set[str] = set()  # while requests still use them
        self._leaving: dict[str, asyncio.Task[None]] = {}

    # ---- what there is ---------------------------------------------------------------------------------------------

    def known(self) -> list[Adapter]:
        return [self._records[name] for name in sorted(self._records)]

    def models(self, base: str) -> list[str]:
        """``base`` with each of its adapters, as a request may name them in its ``model`` field."""
        return [f"{base}{SEPARATOR}{record.name}" for record in self.known() if record.base == base]

    async def add(self, name: str, content: bytes, base: str | None = None) -> AdapterAdded:
        """Keep ``content`` under ``name``, for the writer ``base`` (None: the configured one).

        The same bytes again change nothing.

        Raises:
            RequestError: it is no LoRA adapter, or one for another base; or there is no such writer.
            RefusedError: another adapter has this name.
            StorageError: the disk refused.
        """
        base = base or self._base
        async with self._changing:
            digest = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
            known = self._records.get(name)
            if known is not None:
                if known.sha256 != digest or known.base != base:
                    raise RefusedError(
                        f"another adapter is called {name}; choose another name, or: edge adapter rm {name}"
                    )
                return AdapterAdded(adapter=known, unchanged=True)
            record = await asyncio.to_thread(self._keep, name, content, digest, base)
            self._records[name] = record
            self._removed.discard(_name_in_engine(record))
            return AdapterAdded(adapter=record)

    def _keep(self, name: str, content: bytes, digest: str, base: str) -> Adapter:
        part = self._root / f".{name}.part"
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            found = self._check(name, part, base)
            part.rename(self._file(name))
            record = Adapter(
                name=name,
                base=base,
                architecture=found.architecture,
                rank=found.rank,
                size=len(content),
                sha256=digest,
                added=round(time.time(), 3),
            )
            records.write(self._root / f"{name}.json", record)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file(name).unlink(missing_ok=True)
            raise StorageError(f"the adapter cannot be kept: {error.strerror}; make room, then add it again") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        return record

    def _check(self, name: str, path: Path, base: str) -> lora.Lora:
        try:
            weights = gguf.read(self._weights(base))
        except ModelFileError as error:
            raise RequestError(error.message, param="base") from None
        try:
            found = lora.read(path)
            lora.check_fit(found, weights, base)
        except ModelFileError as error:
            raise RequestError(error.message.replace(str(path), name), param="content") from None
        return found

    async def remove(self, name: str) -> Adapter:
        """Forget it. A text that is being written with it goes on to its end.

        Raises:
            NotFoundError: there is none of this name.
            StorageError: the disk refused.
        """
        async with self._changing:
            record = self._records.get(name)
            if record is None:
                raise NotFoundError(f"no adapter is called {name}; edge adapter list shows them")
            try:
                # The record first: a file without one does not count.
                (self._root / f"{name}.json").unlink(missing_ok=True)
                self._file(name).unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(f"{error.filename} cannot be removed: {error.strerror}; check the disk") from error
            del self._records[name]
            self._removed.add(_name_in_engine(record))
            self._free(_name_in_engine(record))
            return record

    def _file(self, name: str) -> Path:
        return self._root / f"{name}.gguf"

    # ---- what a request wants --------------------------------------------------------------------------------------

    def choose(self, model: str, edge: EdgeRequest | None = None) -> tuple[str, str]:
        """The model that a request wants, and the adapter as engines know it (empty: none).

        ``model`` may name both (``MODEL:ADAPTER``), or ``edge.adapter`` the adapter.

        Raises:
            ModelNotFoundError, RequestError: there is no such adapter, it is another model's, or two are named.
        """
        model, _, named = model.partition(SEPARATOR)
        wanted = edge.adapter if edge is not None else None
        if named and wanted and named != wanted:
            raise RequestError(f"model names the adapter {named} and edge.adapter {wanted}; name one", param="model")
        name = named or wanted
        if not name:
            return model, ""
        record = self._records.get(name)
        if record is None or record.base != (self._base if model == DEFAULT else model):
            text = f"{model} has no adapter {name}; edge adapter list shows which there are"
            if named:
                raise ModelNotFoundError(text, param="model")
            raise RequestError(text, param="edge.adapter")
        return model, _name_in_engine(record)

    def serve(self, engine: Engine) -> None:
        """Have ``engine`` ask here for the adapters of its requests."""
        engine.lease = lambda adapter: self.lease(engine, adapter)

    @contextlib.asynccontextmanager
    async def lease(self, engine: Engine, adapter: str) -> AsyncIterator[None]:
        """``engine`` has ``adapter`` (as :meth:`choose` named it) while the block lasts, or until it dies.

        Raises:
            EngineError: the engine is not there, or died.
            ModelNotFoundError: the adapter was removed meanwhile.
            ModelFileError: its file is damaged.
        """
        self._uses[adapter] += 1
        try:
            await self._ensure(engine, adapter)
            yield
        finally:
            self._uses[adapter] -= 1
            self._free(adapter)

    def _free(self, adapter: str) -> None:
        """Have engines forget an adapter that was removed, once no request uses it."""
        if self._uses[adapter] or adapter not in self._removed:
            return
        self._removed.discard(adapter)
        leaving = asyncio.create_task(self._detach(adapter))
        self._leaving[adapter] = leaving
        leaving.add_done_callback(lambda _: self._leaving.pop(adapter, None))

    async def _ensure(self, engine: Engine, adapter: str) -> None:
        """Attach it, once for each start of the engine."""
        record = next((one for one in self._records.values() if _name_in_engine(one) == adapter), None)
        if record is None:
            raise ModelNotFoundError("the adapter was removed while the request waited; choose another", param="model")
        ready = await engine.child.wait_ready(WAIT_SECONDS)
        life = self._lives.get(engine.child)
        if life is None or life.ready is not ready:
            life = self._lives[engine.child] = _Life(ready)
        async with life.lock:
            if adapter in self._leaving:
                await asyncio.wait([self._leaving[adapter]])
            if adapter in life.names:
                return
            await _call(
                engine.child, Attach(id="", name=adapter, path=str(self._file(record.name)), digest=record.sha256)
            )
            life.names.add(adapter)

    async def _detach(self, adapter: str) -> None:
        """Have every engine free it."""
        for child, life in list(self._lives.items()):
            if adapter not in life.names or child.ready is not life.ready:
                continue
            life.names.discard(adapter)
            try:
                await _call(child, Detach(id="", name=adapter))
            except EdgeError as error:  # an engine that is gone has freed it
                logs.warn("adapter.detach", reason=error.message)


async def _call(child: Child, message: Attach | Detach) -> None:
    key = uuid.uuid4().hex
    if not isinstance(await child.call(key, msgspec.structs.replace(message, id=key)), Attached):
        raise EngineError("the engine did not take the adapter; send the request again")


def _name_in_engine(record: Adapter) -> str:
    return f"{record.name}@{record.sha256[:16]}"


def _sweep(root: Path) -> None:
    """Remove what a crash while adding has left unfinished; say which files nobody has added."""
    for path in root.glob("*.gguf"):
        if not path.with_suffix(".json").exists():
            logs.warn("adapter.unknown", path=str(path), reason="it was never added: edge adapter add, or remove it")
    for path in (*root.glob(".*.part"), *root.glob(".*.json.*")):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # it only takes room
            logs.warn("adapter.left", path=str(path), reason=error.strerror or str(error))
        else:
            logs.info("adapter.swept", path=str(path))


def _recorded(root: Path) -> Iterator[Adapter]:
    """The records whose file is there, and as long as it should be."""
    for path in sorted(root.glob("*.json")):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Adapter)
            size = path.with_suffix(".gguf").stat().st_size
        except (OSError, msgspec.MsgspecError) as error:
            logs.warn("adapter.damaged", path=str(path), reason=str(error))
            continue
        if record.name == path.stem and record.size == size:
            yield record
        else:
            logs.warn("adapter.damaged", path=str(path), reason="its file was cut short or renamed; add it again")
