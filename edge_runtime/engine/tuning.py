"""``python -P -m edge_runtime.engine.tuning NAME --store DIR``: measure the forms of a writer here, and keep the best.

The source file, Q8_0, Q4_K_M, IQ4_NL and Q4_0 are measured for speed here and for loss against the source; a loss
that the catalogue records for the very same bytes is taken as it stands. All native work runs in processes of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_runtime.engine.formats import MEAN_KL_LIMIT, NOTHING_LOST, Candidate, Lost, Row, judge, over
from edge_runtime.engine.loss import Found, Step
from edge_runtime.engine.quantise import FORMATS
from edge_runtime.engine.speed import Speed
from edge_runtime.engine.tuning_output import Json, Output, Prose
from edge_runtime.errors import EdgeError, EngineError, RefusedError
from models.blobs import digest
from models.catalog import Loss
from models.errors import ModelError, UnknownModelError
from models.machine import fingerprint
from models.records import Installed
from models.store import Store

_ROUNDS = 2  # of speed, in turn over all candidates: a neighbour's burst then meets more than one of them
_NO_QUOTA = 2**60
_CROWDED = 20.0  # per cent of time


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for."""

    limit: float  # mean KL, nats per token
    threads: int
    everything: bool = False  # measure refused forms too


class Tuning:
    """One run over one installed writer."""

    def __init__(self, store: Store, name: str, wish: Wish, output: Output) -> None:
        self._store = store
        self._name = name
        self._wish = wish
        self._output = output
        self._paths: dict[str, Path] = {}

    def run(self) -> list[Row]:
        """Measure, choose, and write the choice into the store.

        Raises:
            RefusedError: this is no writer, or it is being tuned already.
            EngineError: the source itself cannot be run.
            ModelError: not installed, damaged, no room.
        """
        installed = self._store.get(self._name)
        if installed.kind != "writer":
            raise RefusedError(f"{self._name} is an {installed.kind}, and only writers are tuned; name a writer")
        if _pressure() > _CROWDED:
            self._output.note(
                "other work is using this machine's processors, so the speeds measured now are low; "
                f"run `edge model tune {self._name}` again when it is quiet"
            )
        with self._workspace() as workspace:
            candidates = [self._source(installed), *self._made(installed, workspace)]
            rows = judge(self._timed(self._weighed(candidates)), limit=self._wish.limit)
            self._keep(rows)
        return rows

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[Path]:
        root = self._store.workspace(self._name)
        with (root / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RefusedError(f"{self._name} is being tuned by another process; wait for it") from error
            # What a killed run left behind goes first.
            for left in root.glob("*.gguf"):
                left.unlink()
            try:
                yield root
            finally:
                shutil.rmtree(root, ignore_errors=True)

    def _source(self, installed: Installed) -> Candidate:
        held = installed.held["weights"]
        self._paths[installed.format] = installed.files["weights"]
        return Candidate(format=installed.format, source=True, size=held.size, sha256=held.sha256, lost=NOTHING_LOST)

    def _recorded(self, file_format: str, source_sha256: str) -> Loss | None:
        try:
            return self._store.entry(self._name).loss(file_format, source_sha256)
        except UnknownModelError:
            return None

    def _made(self, installed: Installed, workspace: Path) -> Iterator[Candidate]:
        source = installed.held["weights"].sha256
        for number, file_format in enumerate(FORMATS):
            if file_format == installed.format:
                continue
            known = self._recorded(file_format, source)
            lost = _lost(known)
            if lost is not None and over(lost, self._wish.limit) and not self._wish.everything:
                yield Candidate(format=file_format, lost=lost)
                continue
            self._output.step("quantise", file_format, number + 1, len(FORMATS))
            path = workspace / f"{file_format}.gguf"
            try:
                self._work("quantise", installed.files["weights"], path, file_format)
            except EngineError as error:
                yield Candidate(format=file_format, problem=error.message)
                continue
            self._paths[file_format] = path
            found = digest(path)
            same = known is not None and known.sha256 == found
            yield Candidate(format=file_format, size=path.stat().st_size, sha256=found, lost=lost if same else None)

    def _weighed(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with the losses that nobody has recorded."""
        unknown = [one.format for one in candidates if one.lost is None and not one.problem]
        if not unknown:
            return list(candidates)
        paths = [self._paths[one.format] for one in candidates if one.source]
        paths += [self._paths[name] for name in unknown]
        found: dict[str, Lost] = {}
        problem = ""
        try:
            for line in self._lines("loss", *paths):
                match msgspec.json.decode(line, type=dict):
                    case {"done": _}:
                        step = msgspec.json.decode(line, type=Step)
                        self._output.step("loss", ", ".join(unknown), step.done, step.total)
                    case _:
                        one = msgspec.json.decode(line, type=Found)
                        found[Path(one.path).stem] = Lost(
                            mean_kl=one.mean_kl,
                            same_top=one.same_top,
                            perplexity_change=one.perplexity_change,
                            tokens=one.tokens,
                            origin="measured",
                        )
        except EngineError as error:
            problem = error.message
        return [
            one
            if one.format not in unknown
            else msgspec.structs.replace(one, lost=found.get(one.format), problem=problem)
            for one in candidates
        ]

    def _timed(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with their speeds: all that may be chosen, and with ``everything`` the others too."""
        wanted = [
            one
            for one in candidates
            if one.lost and not one.problem and one.format in self._paths
            if self._wish.everything or not over(one.lost, self._wish.limit)
        ]
        speeds: dict[str, Speed] = {}
        problems: dict[str, str] = {}
        total = _ROUNDS * len(wanted)
        for number, one in enumerate(wanted * _ROUNDS):
            self._output.step("speed", one.format, number + 1, total)
            try:
                speed = msgspec.json.decode(self._work("speed", self._paths[one.format]), type=Speed)
            except EngineError as error:
                if one.source:
                    raise
                problems[one.format] = error.message
                continue
            speeds[one.format] = speed.best(speeds.get(one.format, speed))
        return [
            msgspec.structs.replace(
                one, speed=speeds.get(one.format), problem=one.problem or problems.get(one.format, "")
            )
            for one in candidates
        ]

    def _keep(self, rows: Sequence[Row]) -> None:
        row = next(row for row in rows if row.verdict == "chosen")
        figures = _figures(row, self._wish)
        if row.source:
            self._store.keep_source(self._name, figures=figures, machine=fingerprint())
            return
        self._store.add_variant(
            self._name,
            self._paths[row.format],
            row.format,
            figures=figures,
            machine=fingerprint(),
            sha256=row.sha256,
        )

    def _work(self, module: str, *arguments: object) -> str:
        """Run one of our modules to its end; what it printed.

        Raises:
            EngineError: it failed, with its last line; or it died, with the signal.
        """
        return "\n".join(self._lines(module, *arguments))

    def _lines(self, module: str, *arguments: object) -> Iterator[str]:
        command = [sys.executable, "-P", "-m", f"edge_runtime.engine.{module}", *map(str, arguments)]
        command += ["--threads", str(self._wish.threads)]
        with (
            tempfile.TemporaryFile() as errors,  # not a pipe: nobody would empty it while lines are read
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            yield from (line for line in process.stdout or () if line.strip())
            status = process.wait()
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace")
        if status != 0:
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "no reason given")
            raise EngineError(f"the {module} step ended with {status}: {last}")


def _pressure(path: Path = Path("/proc/pressure/cpu")) -> float:
    """Share of the last ten seconds, in per cent, in which something waited for a processor; 0 where nobody says."""
    try:
        return float(path.read_text("utf-8").partition("avg10=")[2].split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0


def _figures(row: Row, wish: Wish) -> dict[str, float | int]:
    """What the store keeps of the choice: speeds in tokens a second, loss in nats per token."""
    speed = msgspec.structs.asdict(row.speed) if row.speed else {}
    kept = {name: round(value, 1) for name, value in speed.items()}
    loss = round(row.lost.mean_kl, 5) if row.lost else 0.0
    return {**kept, "mean_kl": loss, "limit": wish.limit, "threads": wish.threads}


def _lost(known: Loss | None) -> Lost | None:
    if known is None:
        return None
    return Lost(
        mean_kl=known.mean_kl,
        same_top=known.same_top,
        perplexity_change=known.perplexity_change,
        tokens=known.tokens,
        origin="recorded",
    )


def is_tuned(store: Store, name: str, *, limit: float = MEAN_KL_LIMIT) -> bool:
    """Whether ``name`` was tuned on this machine, from its present file, under this limit."""
    record = store.tuned(name)
    return record is not None and record.machine == fingerprint() and record.figures.get("limit") == limit


def main(arguments: Sequence[str] | None = None, make: Callable[[Path, int], Store] = Store) -> int:
    asked = _parser().parse_args(arguments)
    output: Output = Json() if asked.json else Prose()
    store = make(asked.store, asked.quota)
    try:
        if asked.if_needed and is_tuned(store, asked.name, limit=asked.max_kl):
            record = store.tuned(asked.name)
            output.already(asked.name, record.format if record else "")
            return 0
        wish = Wish(limit=asked.max_kl, threads=asked.threads, everything=asked.all)
        output.table(asked.name, Tuning(store, asked.name, wish, output).run(), asked.max_kl)
    except (EdgeError, ModelError) as error:
        output.failed(str(error))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge_runtime.engine.tuning", description="Measure the forms of a writer on this machine; keep the best."
    )
    parser.add_argument("name", help="catalogue name of an installed writer")
    parser.add_argument("--store", type=Path, required=True, help="the model store's directory")
    parser.add_argument("--quota", type=int, default=_NO_QUOTA, help="bytes that the store may hold")
    parser.add_argument("--max-kl", type=float, default=MEAN_KL_LIMIT, help="mean KL allowed, nats per token")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--all", action="store_true", help="make and measure refused forms too")
    parser.add_argument("--if-needed", action="store_true", help="do nothing where this machine has been tuned for")
    parser.add_argument("--json", action="store_true", help="progress and the table as JSON, one object a line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
