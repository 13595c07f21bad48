"""Source code is kept as it stands, and its sections follow its definitions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import EdgeError
from edge_runtime.knowledge.source_code import language
from tests.edge_runtime.knowledge.test_parse import attempted, quick, tiles

PYTHON = '''"""Pumps."""
import os

# Before it.
@decorated
class Pump:
    """A pump."""

    limit = 3

    def start(self):
        text = """
def not_one():
"""
        return text

    async def stop(self): ...

    closed = True


def main():
    def inner(): ...
    return inner

print(1)
'''
C = """#include <stdio.h>
#define LOOP(x) { x

/* Adds. */
static int
add(int a, int b)
{
    char brace = '{';
    return a + b; // }
}

struct point { int x; };
static const int table[] = { 1, 2 };
namespace {
class Pump : public Device {
public:
    Pump(int x) : x_(x) {}
    void start() const { if (x_) { run("}"); } }
};
}
"""
RUST = """use std::fmt;

/// A pump.
#[derive(Debug)]
pub struct Pump<'a> { name: &'a str }

impl<'a> fmt::Display for Pump<'a> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

pub(crate) fn main() { let c = '{'; }
"""
GO = """package pump

type Pump struct {
	Name string
}

// Start it.
func (p *Pump) Start(speed int) error {
	s := `}`
	return nil
}

func main() {}
"""
SCRIPT = """import { a } from './a'

export class Pump extends Device {
  start (speed) { return '}' }
}

export const stop = async (pump) => {
  if (pump) { return `}` }
}

app.get('/x', (request, response) => {
  response.send('{')
})
"""
JAVA = """package a;

public class Pump {
    private int x = 1;

    @Override
    public String toString() throws IOException { return "}"; }

    enum Mode { ON, OFF }
}
"""
SHELL = """#!/bin/bash
set -e
# Starts it.
start() {
  echo "}"
}
start
function stop {
  echo
}
"""
SQL = """-- The pumps.
CREATE TABLE IF NOT EXISTS "pumps" (id INT);
create or replace view low AS
  SELECT 1;
INSERT INTO pumps VALUES (1);
"""
TOML = "a = 1\n[tool.ruff]\nline = 3\n[[rules]]\nx = 2\n"
YAML = "version: 3\nservices:\n  web:\n    image: x\n  db:\n    image: y\nvolumes: {}\n"
JSON = '{\n  "name": "x",\n  "pumps": {\n    "P1": 1\n  }\n}\n'
MAKE = "A := 1\nall: build\n\techo\n.PHONY: all\n"


@pytest.mark.parametrize(
    ("name", "source", "paths"),
    [
        ("a.py", PYTHON, ["", "Pump", "Pump/start", "Pump/stop", "Pump", "main", ""]),
        (
            "old.py",
            "print 'x'\nclass A:\n    def b(self):\n        print 1\n\n    x = 1\ny = 2\n",
            ["", "A", "A/b", "A", ""],
        ),
        ("a.cpp", C, ["", "add", "point", "", "Pump", "Pump/Pump", "Pump/start", "Pump", ""]),
        (
            "a.rs",
            RUST,
            [
                "",
                "Pump",
                "impl fmt::Display for Pump<'a>",
                "impl fmt::Display for Pump<'a>/fmt",
                "impl fmt::Display for Pump<'a>",
                "main",
            ],
        ),
        ("a.go", GO, ["", "Pump", "Pump/Start", "main"]),
        ("a.ts", SCRIPT, ["", "Pump", "Pump/start", "Pump", "stop", ""]),
        ("A.java", JAVA, ["", "Pump", "Pump/toString", "Pump/Mode", "Pump"]),
        ("run", SHELL, ["", "start", "", "stop"]),
        ("a.sql", SQL, ["table pumps", "view low", ""]),
        ("a.toml", TOML, ["", "tool.ruff", "rules"]),
        ("a.yml", YAML, ["version", "services", "services/web", "services/db", "volumes"]),
        ("a.json", JSON, ["", "name", "pumps", "pumps/P1"]),
        ("Makefile", MAKE, ["", "all", ".PHONY"]),
        ("a.jsonl", '{"a": 1}\n{"a": 2}\n', [""]),
        ("torn.c", "int f() {\n  {\n}\nint g() {\n}\n", None),
    ],
)
def test_sections_follow_definitions(name: str, source: str, paths: list[str] | None) -> None:
    document = quick(name, source.encode())
    assert (document.format, document.title, document.text) == ("code", name, source)
    assert tiles(document)
    assert all(one.heading[0] == name for one in document.sections)
    if paths is not None:
        found = ["/".join(one.heading[1:]) for one in document.sections]
        assert [path for at, path in enumerate(found) if at == 0 or found[at - 1] != path] == [
            path for at, path in enumerate(paths) if at == 0 or paths[at - 1] != path
        ]


def test_a_definition_has_its_comments_and_decorators() -> None:
    document = quick("a.py", PYTHON.encode())
    (first, *_) = (one for one in document.sections if one.heading[1:] == ("Pump",))
    assert document.text[first.start :].startswith("# Before it.\n@decorated\nclass Pump:")
    document = quick("a.cpp", C.encode())
    (only,) = (one for one in document.sections if one.heading[1:] == ("add",))
    assert document.text[only.start : only.end].startswith("/* Adds. */\nstatic int\nadd(")
    assert document.text[only.start : only.end].rstrip().endswith("// }\n}")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "#!/bin/sh", None),
        ("a.unknown", "", None),
        ("notes", "no shebang", None),
        ("tool", "#!/usr/bin/env python3\n", "python"),
        ("tool", "#!/usr/bin/env -S node --x\n", "script"),
        ("tool", "#!/usr/local/bin/odd\n", "lines"),
        ("Dockerfile", "FROM x", "plain"),
        ("dir.py/A.PY", "", "python"),
    ],
)
def test_the_language_is_told_by_name_and_first_line(name: str, text: str, expected: str | None) -> None:
    assert language(name, text) == expected


def test_a_stray_null_byte_is_a_space_and_a_line_of_a_megabyte_is_read() -> None:
    assert quick("a.py", b"x = 1\0\ny = 2\n").text == "x = 1 \ny = 2\n"
    long = "var a=function(){return{" + "b:1," * 200_000 + "}};"
    assert quick("a.min.js", long.encode()).text == long


_MARKS = "{ } ; ' \" ` // /* */ \\ ( ) = => # @ [ ] : , < class def fn func if for struct x y 1 --"
_ENDINGS = ".py .c .js .rs .sh .sql .toml .yaml .json .mk .go .jsonl"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([*_MARKS.split(), "\n", "\n    ", " ", "\t"]), max_size=60),
    st.sampled_from(_ENDINGS.split()),
)
def test_any_source_is_covered_by_its_sections(pieces: list[str], suffix: str) -> None:
    source = "".join(pieces)
    document = attempted(f"a{suffix}", source.encode())
    if isinstance(document, EdgeError):
        assert document.message.startswith(f"a{suffix} ")
    else:
        assert document.text == source
        assert tiles(document)


@pytest.mark.parametrize(
    "source",
    ["{" * 300_000, "/*" * 300_000, '"\\' * 300_000, "class A {" * 100_000, "a(" * 300_000 + "{", "'" * 300_000],
)
@pytest.mark.parametrize("suffix", [".c", ".js"])
def test_hostile_source_takes_no_more_than_linear_work(source: str, suffix: str) -> None:
    assert tiles(quick(f"a{suffix}", source.encode()))


@pytest.mark.parametrize(
    "source", ["(" * 100_000, "-" * 200_000 + "1", "if 1:\n " * 3000, "x = [" * 90 + "1", "a." * 100_000]
)
def test_python_that_overtaxes_its_parser_is_cut_by_its_lines(source: str) -> None:
    assert tiles(quick("a.py", source.encode()))
