"""LoRA adapters on the real small writer: they change it, they leave no trace, and a wrong one is only refused."""

from __future__ import annotations

import contextlib
import hashlib
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.engine import gguf, lora
from edge_runtime.engine.adapters import Adapters, check
from edge_runtime.engine.llama import Llama, Logits, Shape
from edge_runtime.errors import ModelFileError, RequestError
from tests.edge_runtime import adapter_files as files

PROMPT = "The pump is loud because"
TARGET = "blk.0.attn_q.weight"


@pytest.fixture(scope="module")
def model(small_writer: Path) -> Iterator[Llama]:
    made = Llama(small_writer, Shape(context=256, threads=1, batch=64))
    yield made
    made.close()


@pytest.fixture
def adapters(model: Llama) -> Iterator[Adapters]:
    made = Adapters(model)
    yield made
    for name in ("one", "two"):
        made.detach(name)
    made.use("")


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return files.write(tmp_path / "one.gguf", files.small_adapter())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def logits(model: Llama) -> Logits:
    model.clear()
    model.decode(model.vocabulary.tokens(PROMPT), 0)
    return model.logits().copy()


def written(model: Llama, count: int = 12) -> list[int]:
    """The greedy continuation."""
    tokens = model.vocabulary.tokens(PROMPT)
    found: list[int] = []
    row = logits(model)
    for position in range(len(tokens), len(tokens) + count):
        found.append(int(row.argmax()))
        model.decode(found[-1:], position)
        row = model.logits()
    return found


def test_an_adapter_changes_what_is_written_and_none_restores_it_to_the_bit(
    model: Llama, adapters: Adapters, one: Path
) -> None:
    before, text = logits(model), written(model)
    adapters.attach("one", check(one, digest(one)))
    assert np.array_equal(logits(model), before)
    adapters.use("one")
    changed, other = logits(model), written(model)
    assert not np.array_equal(changed, before)
    assert other != text
    adapters.use("")
    assert np.array_equal(logits(model), before)
    assert written(model) == text
    adapters.use("one")
    assert np.array_equal(logits(model), changed)


def test_two_adapters_do_not_mix(model: Llama, adapters: Adapters, one: Path, tmp_path: Path) -> None:
    two = files.write(tmp_path / "two.gguf", files.small_adapter(seed=2))
    adapters.attach("one", check(one, digest(one)))
    adapters.use("one")
    alone = logits(model)
    adapters.attach("two", check(two, digest(two)))
    adapters.use("two")
    assert not np.array_equal(logits(model), alone)
    adapters.use("one")
    assert np.array_equal(logits(model), alone)
    assert adapters.digest("one") != adapters.digest("two")
    assert adapters.digest("") == ""


def test_freeing_the_adapter_in_use_leaves_the_bare_model(model: Llama, adapters: Adapters, one: Path) -> None:
    before = logits(model)
    adapters.attach("one", check(one, digest(one)))
    adapters.use("one")
    adapters.detach("one")
    assert np.array_equal(logits(model), before)
    assert "one" not in adapters
    with pytest.raises(RequestError, match="one is not attached"):
        adapters.use("one")
    with pytest.raises(RequestError, match="one is not attached"):
        adapters.digest("one")


def test_a_name_that_comes_again_with_another_file_is_that_file(
    model: Llama, adapters: Adapters, one: Path, tmp_path: Path
) -> None:
    two = files.write(tmp_path / "two.gguf", files.small_adapter(seed=2))
    adapters.attach("one", check(one, digest(one)))
    adapters.use("one")
    first = logits(model)
    adapters.attach("one", check(one, digest(one)))
    assert np.array_equal(logits(model), first)
    adapters.attach("one", check(two, digest(two)))
    adapters.use("one")
    assert not np.array_equal(logits(model), first)


def test_a_second_context_has_a_choice_of_its_own(model: Llama, adapters: Adapters, one: Path) -> None:
    before = logits(model)
    beside = model.sibling(Shape(context=256, threads=1, batch=64))
    adapters.attach("one", check(one, digest(one)))
    adapters.use("one", beside)
    assert np.array_equal(logits(model), before)
    assert not np.array_equal(logits(beside), before)
    beside.close()
    adapters.detach("one")
    assert np.array_equal(logits(model), before)


def test_a_file_that_changed_since_it_was_added_is_refused(adapters: Adapters, one: Path) -> None:
    known = digest(one)
    data = bytearray(one.read_bytes())
    data[-200] ^= 1
    one.write_bytes(data)
    with pytest.raises(ModelFileError, match="has changed since it was added"):
        adapters.attach("one", check(one, known))
    with pytest.raises(ModelFileError, match="cannot be read"):
        adapters.attach("one", check(one.with_name("absent"), known))


def half(shape: tuple[int, ...], kind: int = files.F32, size: int = 4) -> files.Tensor:
    count = 1
    for side in shape:
        count *= side
    return shape, kind, bytes(count * size)


PAIR = files.pair(TARGET, (576, 576))
WRONG: dict[str, tuple[bytes, str]] = {
    "a model": (files.gguf({**files.facts(), "general.type": "model"}, PAIR), "not a LoRA adapter"),
    "a control vector": (files.gguf({**files.facts(), "adapter.type": "vector"}, PAIR), "not a LoRA adapter"),
    "another architecture": (files.gguf(files.facts("qwen2"), PAIR), "architecture qwen2"),
    "an architecture that is a number": (files.gguf({**files.facts(), "general.architecture": 7}, PAIR), "which arch"),
    "a type that is a number": (files.gguf({**files.facts(), "general.type": 7}, PAIR), "not a LoRA adapter"),
    "alpha in words": (files.gguf({**files.facts(), "adapter.lora.alpha": "four"}, PAIR), "must be a number"),
    "alpha as a whole number": (files.gguf({**files.facts(), "adapter.lora.alpha": 4}, PAIR), "must be a number"),
    "alpha that is none": (files.gguf({**files.facts(), "adapter.lora.alpha": float("nan")}, PAIR), "must be a number"),
    "an activated one": (files.gguf({**files.facts(), "adapter.alora.invocation_tokens": [1, 2]}, PAIR), "activated"),
    "no pairs": (files.gguf(files.facts(), {"blk.0.attn_norm.weight": half((576,))}), "changes nothing"),
    "one half alone": (files.gguf(files.facts(), {f"{TARGET}.lora_a": half((576, 2))}), "one half"),
    "a tensor of another kind": (files.gguf(files.facts(), {**PAIR, "extra": half((576, 2))}), "no part of"),
    "another width": (files.gguf(files.facts(), files.pair(TARGET, (896, 896))), "does not fit this model"),
    "a tensor that the base lacks": (
        files.gguf(files.facts(), files.pair("blk.99.attn_q.weight", (576, 576))),
        "does not fit this model",
    ),
    "ranks that differ": (
        files.gguf(files.facts(), {f"{TARGET}.lora_a": half((576, 2)), f"{TARGET}.lora_b": half((3, 576))}),
        "ranks 2 and 3",
    ),
    "a rank of nothing": (
        files.gguf(
            files.facts(),
            {
                f"{TARGET}.lora_a": half((576, 0)),
                f"{TARGET}.lora_b": half((0, 576)),
                "blk.0.attn_norm.weight": half((576,)),
            },
        ),
        "ranks 0 and 0",
    ),
    "a third dimension": (
        files.gguf(files.facts(), {f"{TARGET}.lora_a": half((576, 2, 2)), f"{TARGET}.lora_b": half((2, 576))}),
        "not by matrices",
    ),
    "whole numbers": (
        files.gguf(files.facts(), {f"{TARGET}.lora_a": half((576, 2), 26), f"{TARGET}.lora_b": half((2, 576), 26)}),
        "type 26",
    ),
    "embeddings whose halves do not meet": (
        files.gguf(
            files.facts(),
            {"token_embd.weight.lora_a": half((3, 49152)), "token_embd.weight.lora_b": half((2, 576))},
        ),
        "ranks 3 and 2",
    ),
    "infinite values": (
        files.gguf(
            files.facts(), {**PAIR, f"{TARGET}.lora_b": ((2, 576), files.F32, struct.pack("<f", float("inf")) * 1152)}
        ),
        "no numbers",
    ),
    "half precision that is no number": (
        files.gguf(
            files.facts(),
            {f"{TARGET}.lora_a": ((576, 2), 1, b"\x00\x7e" * 1152), f"{TARGET}.lora_b": half((2, 576), 1, 2)},
        ),
        "no numbers",
    ),
    "bfloat16 that is no number": (
        files.gguf(
            files.facts(),
            {f"{TARGET}.lora_a": half((576, 2), 30, 2), f"{TARGET}.lora_b": ((2, 576), 30, b"\xc0\x7f" * 1152)},
        ),
        "no numbers",
    ),
    "blocks whose scale is no number": (
        files.gguf(
            files.facts(),
            {
                f"{TARGET}.lora_a": ((576, 32), 8, (b"\x00\x7c" + bytes(32)) * 576),
                f"{TARGET}.lora_b": half((32, 576)),
            },
        ),
        "no numbers",
    ),
    "a cut": (files.gguf(files.facts(), PAIR)[:-600], "ends inside"),
    "a head that is cut": (files.gguf(files.facts(), {"x" * 4000: half((576, 2))})[:3000], "ends inside a value"),
    "text": (b"# A note\n" * 200, "not a GGUF"),
    "nothing": (b"", "cut short"),
}

REFUSING = """
import hashlib, sys
from pathlib import Path
from edge_runtime.engine.adapters import Adapters, check
from edge_runtime.engine.llama import Llama, Shape
from edge_runtime.errors import ModelFileError
model = Llama(Path(sys.argv[1]), Shape(context=256, threads=1, batch=64))
adapters = Adapters(model)
for path in sorted(Path(sys.argv[2]).iterdir()):
    try:
        adapters.attach("x", check(path, hashlib.sha256(path.read_bytes()).hexdigest()))
    except ModelFileError as error:
        print(f"{path.name}: {error.message}")
model.decode(model.vocabulary.tokens("still here"), 0)
print("end")
"""


def test_wrong_adapters_are_refused_with_their_fault_and_the_process_lives(tmp_path: Path, small_writer: Path) -> None:
    for name, (content, _) in WRONG.items():
        files.write(tmp_path / name, content)
    command = [sys.executable, "-c", REFUSING, str(small_writer), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines()[:-1])
    assert told.keys() == WRONG.keys()
    assert {name: told[name] for name, (_, fault) in WRONG.items() if fault not in told[name]} == {}


def test_the_head_of_the_writer_is_read_whole_and_its_own_adapter_fits_it(small_writer: Path, one: Path) -> None:
    base = gguf.read(small_writer)
    assert base.facts["general.architecture"] == "llama"
    assert base.facts["tokenizer.ggml.tokens"] is None
    assert base.tensors[TARGET].shape == (576, 576)
    lora.check_fit(lora.read(one), base, "small")


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: files.gguf(files.facts("qwen2"), PAIR), "is for models of architecture qwen2, and small is llama"),
        (
            lambda: files.gguf(files.facts(), files.pair(TARGET, (896, 896))),
            "of 896 x 896, and small has it as 576 x 576",
        ),
        (lambda: files.gguf(files.facts(), files.pair("blk.99.x", (576, 576))), "and small lacks it"),
    ],
)
def test_an_adapter_for_another_base_is_told_from_the_head_alone(
    small_writer: Path, tmp_path: Path, make: Callable[[], bytes], fault: str
) -> None:
    found = lora.read(files.write(tmp_path / "other.gguf", make()))
    with pytest.raises(ModelFileError, match=fault):
        lora.check_fit(found, gguf.read(small_writer), "small")


@settings(max_examples=200)
@given(st.data())
def test_a_file_damaged_anywhere_in_its_head_is_read_or_refused_and_never_more(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(files.gguf(files.facts(), files.pair(TARGET, (576, 576))))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(ModelFileError):
        lora.read(path)
