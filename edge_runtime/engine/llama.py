"""llama.cpp's C API, as much of it as the engine uses: one model, its vocabulary, and one context of KV cells.

Calls go through llama-cpp-python's low-level binding, imported without the package's ``__init__`` (its high-level API
costs 0.13 s). Knows nothing of requests, sampling or text that is only half there.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.engine import gguf
from edge_runtime.errors import EngineError, ModelFileError, RequestError

Logits = npt.NDArray[np.float32]

_WARNING = 3  # enum ggml_log_level: 1 debug, 2 info, 3 warning, 4 error, 5 continues the line before
_ERROR = 4
_CONTINUED = 5
_MAX_TEXT = 2**31 - 1  # llama_tokenize counts bytes in an int32
_BF16 = 30  # enum ggml_type
_ABORTED = 2  # llama_decode's status where the abort callback said so


class AbortedError(EngineError):
    """An evaluation was broken off before its end."""


class Journal:
    """Takes llama.cpp's log lines: warnings and errors go to stderr, and the last error is kept for a message."""

    def __init__(self) -> None:
        self.last_error = ""
        self._level = 0

    def write(self, level: int, text: bytes | None, _data: object) -> None:
        self._level = self._level if level == _CONTINUED else level
        line = (text or b"").decode("utf-8", "replace")
        if self._level == _ERROR and line.strip():
            self.last_error = line.strip()
        if self._level >= _WARNING:
            sys.stderr.write(line)
            sys.stderr.flush()


@functools.cache
def journal() -> Journal:
    return Journal()


@functools.cache
def binding() -> Any:
    """The module ``llama_cpp.llama_cpp``, its log redirected and its back ends ready.

    Raises:
        EngineError: llama.cpp is not installed, or its library does not load on this machine.
    """
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None:
            raise EngineError("llama.cpp is not installed here; run `edge-firmware build-llama`")
        sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)
    try:
        module: Any = importlib.import_module("llama_cpp.llama_cpp")
    except (RuntimeError, OSError) as error:
        raise EngineError(f"llama.cpp does not load ({error}); run `edge-firmware build-llama`") from error
    callback = module.llama_log_callback(journal().write)
    module.llama_log_set(callback, None)
    module.edge_log_callback = callback  # the library keeps no reference of its own
    module.llama_backend_init()
    return module


@dataclass(frozen=True, slots=True)
class Shape:
    """A context's size: KV cells (tokens), threads, tokens per decode, sequences, and rows of logits per decode."""

    context: int = 4096
    threads: int = 2
    batch: int = 256
    sequences: int = 1
    outputs: int = 8
    exact: bool = False  # every row comes out the same to the bit, whatever is evaluated with it (and slower)


class Vocabulary:
    """Text to tokens and back, for one model."""

    def __init__(self, model: Any) -> None:
        self._c = binding()
        self._vocab = self._c.llama_model_get_vocab(model)
        self.width = int(self._c.llama_vocab_n_tokens(self._vocab))
        self.bos = int(self._c.llama_vocab_bos(self._vocab))
        self.eos = int(self._c.llama_vocab_eos(self._vocab))
        self.adds_bos = bool(self._c.llama_vocab_get_add_bos(self._vocab)) and self.bos >= 0
        self._buffer = ctypes.create_string_buffer(512)

    def tokens(self, text: str, *, bos: bool = True, special: bool = True) -> list[int]:
        """``bos`` puts the model's own first token before the text, where the model wants one and the text has none.

        Raises:
            RequestError: the text has no tokens in this vocabulary's encoding.
        """
        data = text.encode("utf-8", "replace")
        if len(data) > _MAX_TEXT:
            raise RequestError("the text is over 2 GiB; send less of it")
        room = len(data) + 8
        array = (ctypes.c_int32 * room)()
        count = self._c.llama_tokenize(self._vocab, data, len(data), array, room, False, special)
        if count < 0:
            array = (ctypes.c_int32 * -count)()
            count = self._c.llama_tokenize(self._vocab, data, len(data), array, -count, False, special)
        if count < 0:
            raise RequestError("the text cannot be cut into tokens; check that it is text")
        found = list(array[:count])
        if bos and self.adds_bos and found[:1] != [self.bos]:
            found.insert(0, self.bos)
        return found

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The token's bytes; a control token has none unless ``special``."""
        if token < 0:
            return b""
        size = self._c.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, special)
        if size < 0:
            self._buffer = ctypes.create_string_buffer(-size)
            size = self._c.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, special)
        return ctypes.string_at(self._buffer, size)

    def ends(self, token: int) -> bool:
        """Whether the token ends a generation."""
        return bool(self._c.llama_vocab_is_eog(self._vocab, token))

    def is_control(self, token: int) -> bool:
        return bool(self._c.llama_vocab_is_control(self._vocab, token))

    def controls(self, spelled: Iterable[str]) -> set[int]:
        """The control tokens that these strings spell; a string that spells none, or more than one token, has none."""
        cut = (self.tokens(text, bos=False) for text in spelled if text)
        return {tokens[0] for tokens in cut if len(tokens) == 1 and self.is_control(tokens[0])}


class Rows:
    """A ``llama_batch`` over NumPy arrays: a step fills slices, and no loop in Python touches a row."""

    def __init__(self, c: Any, size: int) -> None:
        self.tokens = np.zeros(size, np.int32)
        self.positions = np.zeros(size, np.int32)
        self.sequences = np.zeros(size, np.int32)  # one sequence a row
        self.wanted = np.zeros(size, np.int8)
        self._counts = np.ones(size, np.int32)
        self._pointers = (self.sequences.ctypes.data + self.sequences.itemsize * np.arange(size)).astype(np.uintp)
        kinds = dict(c.llama_batch._fields_)
        self._batch = c.llama_batch()
        for name, array in (
            ("token", self.tokens),
            ("pos", self.positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self.wanted),
        ):
            setattr(self._batch, name, ctypes.cast(array.ctypes.data, kinds[name]))

    def batch(self, count: int) -> Any:
        """The first ``count`` rows."""
        self._batch.n_tokens = count
        return self._batch


class Llama:
    """One loaded model with one context.

    Raises (on construction):
        ModelFileError: the file is missing, damaged, not GGUF, or holds no model that generates text.
        EngineError: llama.cpp is not there, or the context does not fit in memory.
    """

    def __init__(self, path: Path, shape: Shape, *, beside: Llama | None = None) -> None:
        self._c = binding()
        self._context: Any = None
        self._owns = beside is None
        self.path = path
        self._model: Any = beside.model if beside is not None else self._load(path)
        try:
            self._open_context(path, shape)
        except BaseException:
            self.close()
            raise
        self.vocabulary: Vocabulary = beside.vocabulary if beside is not None else Vocabulary(self._model)
        self.width = self.vocabulary.width

    def _load(self, path: Path) -> Any:
        gguf.check(path)
        journal().last_error = ""
        settings = self._c.llama_model_default_params()
        settings.n_gpu_layers = 0
        model = self._c.llama_model_load_from_file(str(path).encode(), settings)
        if not model:
            detail = journal().last_error or "llama.cpp gives no reason"
            raise ModelFileError(
                f"the model file {path} is damaged or of an unknown kind: {detail}; run `edge model verify`"
            )
        return model

    def sibling(self, shape: Shape) -> Llama:
        """A second context on the same weights; it must be closed before this one.

        Raises:
            EngineError: it does not fit in memory.
        """
        return Llama(self.path, shape, beside=self)

    def _open_context(self, path: Path, shape: Shape) -> None:
        c = self._c
        if not c.llama_model_has_decoder(self._model):
            raise ModelFileError(f"{path} holds no model that generates text; choose a writer with `edge model list`")
        self.trained_context = int(c.llama_model_n_ctx_train(self._model))
        settings = c.llama_context_default_params()
        settings.n_ctx = min(shape.context, self.trained_context) if self.trained_context > 0 else shape.context
        settings.n_batch = settings.n_ubatch = shape.batch
        settings.n_seq_max = shape.sequences
        settings.n_outputs_max = settings.n_outputs_max_per_seq = min(shape.outputs, shape.batch)
        settings.n_threads = settings.n_threads_batch = shape.threads
        settings.kv_unified = True
        settings.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_AUTO
        if shape.exact:
            # Keys and values of two types keep flash attention off the kernels whose sums depend on the number of
            # rows, of cells and of threads (ggml-cpu/ops.cpp); long prompts then take twice the time.
            settings.type_v = _BF16
        # A C function with no Python in it: called for every node of the graph, on a thread that must not wait for the
        # interpreter. strlen of an empty string says go on, of another one stop.
        self._flag = ctypes.create_string_buffer(2)
        settings.abort_callback = ctypes.cast(ctypes.CDLL(None).strlen, c.ggml_abort_callback)
        settings.abort_callback_data = ctypes.addressof(self._flag)
        self._context = c.llama_init_from_model(self._model, settings)
        if not self._context:
            detail = journal().last_error or "not enough memory?"
            raise EngineError(f"no context of {shape.context} tokens could be made: {detail}; lower [engine] context")
        self.context = int(settings.n_ctx)
        self.batch = shape.batch
        self.outputs = int(settings.n_outputs_max)
        self.memory = c.llama_get_memory(self._context)
        self.rows = Rows(c, shape.batch)
        self._views: dict[int, Logits] = {}  # of rows of logits, by address: making one takes as long as an argmax
        self.threads = shape.threads

    def warm_up(self) -> None:
        """Evaluate one token and forget it: the first request then finds pages, threads and buffers ready.

        Raises:
            EngineError: llama.cpp refused.
        """
        self.decode([max(self.vocabulary.bos, 0)], 0)
        self.clear()

    def close(self) -> None:
        """Free the context and the model; nothing else may be called afterwards."""
        if self._context:
            self._c.llama_free(self._context)
            self._context = None
        if self._model and self._owns:
            self._c.llama_model_free(self._model)
        self._model = None

    @property
    def model(self) -> Any:
        """``llama_model *``, for calls that are made elsewhere."""
        return self._model

    @property
    def handle(self) -> Any:
        """``llama_context *``, for calls that are made elsewhere."""
        return self._context

    def use_threads(self, threads: int) -> None:
        """From the next call on."""
        if threads != self.threads:
            self._c.llama_set_n_threads(self._context, threads, threads)
            self.threads = threads

    def abort(self) -> None:
        """Let the call that runs now in another thread end with :class:`AbortedError`; safe at any time."""
        self._flag[0] = b"x"

    def take_abort(self) -> None:
        """Forget an :meth:`abort` that no call has seen."""
        self._flag[0] = b"\0"

    def metadata(self, key: str) -> str | None:
        buffer = ctypes.create_string_buffer(256)
        size = self._c.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if size >= 0 else None

    @property
    def layout(self) -> str:
        """What a saved cell depends on beside the weights and the build."""
        c = self._c
        facts = (
            c.llama_model_n_layer,
            c.llama_model_n_embd,
            c.llama_model_n_head_kv,
            c.llama_model_rope_freq_scale_train,
        )
        return f"f16 f16 unified flash-auto {' '.join(str(fact(self._model)) for fact in facts)}"

    def template(self) -> str | None:
        """The chat template inside the file."""
        found = self._c.llama_model_chat_template(self._model, None)
        return found.decode("utf-8", "replace") if found else None

    def decode(self, tokens: Sequence[int], position: int, *, outputs: int = 1) -> None:
        """Evaluate ``tokens`` (at most ``batch``) of sequence 0 from ``position`` on; the last ``outputs`` have logits.

        Raises:
            EngineError: llama.cpp refused; the cells of this call are not valid.
        """
        count = len(tokens)
        rows = self.rows
        rows.tokens[:count] = tokens
        rows.positions[:count] = np.arange(position, position + count)
        rows.sequences[:count] = 0
        rows.wanted[: count - outputs] = 0
        rows.wanted[count - outputs : count] = 1
        self.run(count)

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> None:
        """Evaluate one token of each sequence 0, 1, 2, ...; every row has logits.

        Raises:
            EngineError: llama.cpp refused.
        """
        count = len(tokens)
        rows = self.rows
        rows.tokens[:count] = tokens
        rows.positions[:count] = positions
        rows.sequences[:count] = np.arange(count)
        rows.wanted[:count] = 1
        self.run(count)

    def run(self, count: int) -> None:
        """Evaluate the first ``count`` of :attr:`rows`.

        Raises:
            AbortedError: :meth:`abort` was called; the cells of this call are not valid.
            EngineError: llama.cpp refused; likewise.
        """
        status = self._c.llama_decode(self._context, self.rows.batch(count))
        if status == _ABORTED:
            raise AbortedError("the evaluation was broken off; ask again")
        if status != 0:
            raise EngineError(f"llama.cpp could not evaluate {count} tokens (status {status}); ask again")

    def logits(self, row: int = -1) -> Logits:
        """Logits of ``row`` of the last decode (-1: the last row that has any); valid until the next decode.

        Raises:
            EngineError: this row was not asked for.
        """
        pointer = self._c.llama_get_logits_ith(self._context, row)
        if not pointer:
            raise EngineError(f"the last step has no logits at row {row}; ask again")
        address = ctypes.addressof(pointer.contents)
        if address not in self._views:
            # llama.cpp keeps one buffer; where it makes a larger one, the old addresses mean nothing any more.
            if len(self._views) > self.outputs:
                self._views.clear()
            self._views[address] = np.ctypeslib.as_array(pointer, (self.width,))
        return self._views[address]

    def forget(self, sequence: int, start: int) -> bool:
        """Drop the cells of ``sequence`` from position ``start`` on (-1: every sequence's); false: it cannot be cut."""
        return bool(self._c.llama_memory_seq_rm(self.memory, sequence, start, -1))

    def copy(self, source: int, target: int) -> None:
        """Let ``target`` share every cell of ``source``."""
        self._c.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def clear(self) -> None:
        """Drop all cells, and overwrite what they held."""
        overwrite = True
        self._c.llama_memory_clear(self.memory, overwrite)
