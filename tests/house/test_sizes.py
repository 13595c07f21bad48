"""A module, class or function that outgrows its budget asks a design question; a vague name hides one."""

from __future__ import annotations

import ast
import re

from tests.house.tree import PACKAGES, REPO, modules

MODULE_LINES = 400
CLASS_LINES = 250
FUNCTION_LINES = 60
POSITIONAL = 6
CODE = (*PACKAGES, "benchmarks")

VAGUE = {"manager", "handler", "helper", "helpers", "util", "utils", "common", "misc", "base", "impl", "processor"}
VAGUE |= {"service", "factory"}
VAGUE_THINGS = VAGUE | {"data", "info", "new", "v2"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Named = Function | ast.ClassDef


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _words(name: str) -> set[str]:
    """Its words in lower case; a processor is the machine's unless something else is what it processes."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)]
    compound = len(words) > 1 and words[-1] == "processor"
    return {word for word in words if word != "processor" or compound}


def test_no_module_passes_its_budget() -> None:
    long = {
        name: lines
        for name in modules(*CODE, "tests")
        if (lines := (REPO / name).read_text("utf-8").count("\n")) > MODULE_LINES
    }
    assert not long


def test_no_class_passes_its_budget() -> None:
    long = [
        f"{name}:{node.lineno} {node.name} has {_lines(node)} lines"
        for name, module in modules(*CODE).items()
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef) and _lines(node) > CLASS_LINES
    ]
    assert not long


def test_no_function_passes_its_budget() -> None:
    long = [
        f"{name}:{node.lineno} {node.name} has {_lines(node)} lines"
        for name, module in modules(*CODE).items()
        for node in ast.walk(module)
        if isinstance(node, Function) and _lines(node) > FUNCTION_LINES
    ]
    assert not long


def test_no_function_takes_more_positional_arguments_than_its_budget() -> None:
    wide = []
    for name, module in modules(*CODE).items():
        for node in ast.walk(module):
            if isinstance(node, Function):
                taken = [
                    item.arg for item in (*node.args.posonlyargs, *node.args.args) if item.arg not in {"self", "cls"}
                ]
                if len(taken) > POSITIONAL:
                    wide.append(f"{name}:{node.lineno} {node.name}({', '.join(taken)})")
    assert not wide


def test_no_name_is_vague() -> None:
    vague = []
    for name, module in modules(*CODE).items():
        vague += [f"{name}: the path" for part in name.removesuffix(".py").split("/") if _words(part) & VAGUE_THINGS]
        for node in ast.walk(module):
            banned = VAGUE_THINGS if isinstance(node, ast.ClassDef) else VAGUE
            if isinstance(node, Named) and _words(node.name) & banned:
                vague.append(f"{name}:{node.lineno} {node.name}")
    assert not vague
