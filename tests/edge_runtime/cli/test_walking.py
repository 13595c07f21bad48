"""Files on their way from disks as they are: many, changing, vanishing, in loops, and some that are no files."""

from __future__ import annotations

import os
import socket
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.cli.walking import Total, find, read_whole
from edge_runtime.errors import DocumentError

MANY = 20_000


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def gather(*paths: Path) -> tuple[list[str], dict[str, str]]:
    """The names that were found, and what was refused."""
    refused: dict[str, str] = {}
    names = [file.name for file in find(list(paths), lambda path, reason: refused.update({path.name: reason}))]
    return names, refused


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of very many files."""
    folder = tmp_path_factory.mktemp("crowd")
    for number in range(MANY):
        (folder / f"{number:06}.txt").touch()
    return folder


def test_a_folder_of_very_many_files_is_walked_with_few_in_memory_and_few_descriptors(crowd: Path) -> None:
    before = _descriptors()
    tracemalloc.start()
    try:
        found = 0
        for _ in find([crowd], lambda *_: None):
            found += 1
            if found % 5000 == 0:
                assert _descriptors() <= before + 2
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == MANY
    assert most < 16 * 2**20


def test_the_first_file_comes_before_the_last_is_looked_for(crowd: Path) -> None:
    walk: Iterator[object] = find([crowd], lambda *_: None)
    assert next(walk)
    total = Total.of([crowd])
    while not total.known:
        pass
    assert total.files == MANY


def test_a_tree_deeper_than_the_interpreters_stack_is_walked(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    here = deep
    deep.mkdir()
    for _ in range(1200):
        here = Path(f"{here}/d")
        here.mkdir()
    (deep / "a.md").touch()
    (here / "z.md").touch()
    names, refused = gather(deep)
    (here / "z.md").unlink()
    while here != deep:  # what clears temporary folders would not come this far down
        here.rmdir()
        here = here.parent
    assert ([len(name.split("/")) for name in names], refused) == ([2, 1202], {})


def test_loops_of_links_pipes_sockets_and_closed_folders_are_told_and_passed_by(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    os.mkfifo(folder / "pipe")
    (folder / "good.md").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(folder / "s"))
        names, refused = gather(folder)
    assert names == ["f/good.md"]
    assert set(refused) == {"self", "pipe", "s"}
    assert "symbolic links" in refused["self"]


def test_a_folder_that_vanishes_on_the_way_is_told_and_the_rest_is_found(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "f" / name).mkdir(parents=True)
        (tmp_path / "f" / name / "x.md").touch()
    refused: list[Path] = []
    names = []
    for file in find([tmp_path / "f"], lambda path, _: refused.append(path)):
        names.append(file.name)
        if file.name == "f/a/x.md":
            (tmp_path / "f" / "b" / "x.md").unlink()
            (tmp_path / "f" / "b").rmdir()
    assert names == ["f/a/x.md", "f/c/x.md"]
    assert refused == [tmp_path / "f" / "b"]


def test_names_of_control_characters_are_kept_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a\x1b[31m\n.md").touch()
    assert gather(folder)[0] == ["f/a\x1b[31m\n.md"]


def test_names_that_differ_in_what_is_not_utf8_do_not_replace_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for byte in (b"\xe8", b"\xe9"):
        Path(os.fsdecode(os.fsencode(folder) + b"/caf" + byte)).touch()
    names, refused = gather(folder)
    assert (names, len(refused)) == (["f/caf\ufffd"], 1)


def test_a_path_that_is_named_twice_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "a.md").touch()
    assert gather(tmp_path / "a.md", tmp_path / "a.md") == (["a.md"], {})


def test_files_of_one_name_in_two_folders_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "manuals").mkdir(parents=True)
        (tmp_path / place / "manuals" / "same.md").touch()
        (tmp_path / place / "manuals" / f"{place}.md").touch()
    names, refused = gather(tmp_path / "one" / "manuals", tmp_path / "two" / "manuals")
    assert names == ["manuals/one.md", "manuals/same.md", "manuals/two.md"]
    assert "has the same name" in refused["same.md"]


def _read_often(path: Path) -> None:
    for _ in range(5000):  # a reading may fit between two writings
        read_whole(path, 2**30)


def test_a_file_that_grows_while_it_is_read_is_given_up_and_read_when_it_rests(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    with path.open("wb") as file:
        file.truncate(
            2**27
        )  # reading it takes long enough for the other process to be let to write, on a busy machine too
    loop = "while :; do echo more >> log.txt; done"
    # A process: a thread of ours would write only when we do not read.
    with subprocess.Popen(["sh", "-c", loop], cwd=tmp_path) as writer:
        try:
            with pytest.raises(DocumentError, match="being written to"):
                _read_often(path)
        finally:
            writer.kill()
    assert read_whole(path, 2**30) == path.read_bytes()


def test_a_pipe_that_took_a_files_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.md")
    with pytest.raises(DocumentError, match="neither a file"):
        read_whole(tmp_path / "a.md", 2**30)


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"x" * 11)
    with pytest.raises(DocumentError, match="the limit is 10 B"):
        read_whole(tmp_path / "a.md", 10)
