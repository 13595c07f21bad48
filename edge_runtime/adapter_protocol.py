"""The bodies of ``/edge/v1/adapters`` on the socket, as :mod:`edge_runtime.protocol` has the others."""

from __future__ import annotations

from edge_runtime.protocol import AdapterName, Base64, Own, Wire


class Adapter(Wire, frozen=True, kw_only=True):
    """One LoRA adapter of the model ``base``."""

    name: str
    base: str
    architecture: str
    rank: int  # of its largest pair of matrices
    size: int  # bytes
    sha256: str
    added: float  # Unix seconds


class AdapterAdd(Own, frozen=True, kw_only=True):
    """``POST /edge/v1/adapters``: a GGUF file in base64, made for the writer ``base``."""

    name: AdapterName
    content: Base64
    base: str | None = None  # an installed writer; null: the configured one


class AdapterAdded(Wire, frozen=True, kw_only=True):
    adapter: Adapter
    unchanged: bool = False  # the same bytes were already there under this name


class ListedAdapter(Adapter, frozen=True, kw_only=True):
    base_installed: bool  # as a whole; false: it was removed, or is damaged, and the adapter waits for it


class AdapterList(Wire, frozen=True, kw_only=True):
    adapters: list[ListedAdapter]


class AdapterRemoved(Wire, frozen=True, kw_only=True):
    removed: str
    freed: int  # bytes
