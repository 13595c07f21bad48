"""``edge chat``: question after question at the terminal, each answered from the documents.

Every question stands alone: nothing of one answer is carried into the next. Where the documents do not say, the chat
says that, and lets no model guess. Without a terminal it reads one question a line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from edge_runtime.cli.ask import AnswerView, note
from edge_runtime.cli.output import Wrapped, clean_line, complain, paint, place, put, put_citation, say, table, width
from edge_runtime.client import SyncClient, connect_sync
from edge_runtime.errors import EdgeError, ExitCode
from edge_runtime.knowledge_protocol import AskMode, Citation
from edge_runtime.paths import Paths
from edge_runtime.protocol import DEFAULT_COLLECTION

_AROUND = 400  # characters shown before and after a quote
_PROMPT = "> "
_COMMANDS = {
    "/help": "these commands",
    "/sources": "the quotes of the last answer; /sources 1 shows the first where it stands",
    "/docs": "the documents in the index",
    "/model": "which models answer",
    "/quit": "leave (or ctrl-d)",
}


class Conversation:
    """One person's questions to one daemon."""

    def __init__(self, box: SyncClient, *, collection: str = DEFAULT_COLLECTION, mode: AskMode = "auto") -> None:
        self._box = box
        self._collection = collection
        self._mode = mode
        self._shown: list[Citation] = []
        self.exit_code = ExitCode.OK  # of the last line that failed

    def run(self, lines: Iterator[str]) -> None:
        """Answer each line until there are no more, or one says ``/quit``."""
        for line in lines:
            words = line.split()
            if words == ["/quit"]:
                return
            try:
                self._take(line.strip(), words)
            except EdgeError as error:
                complain(error.message)
                self.exit_code = error.exit_code
            except KeyboardInterrupt:
                # The call's connection is closed by now, and the daemon stops its work.
                if not sys.stdin.isatty():
                    raise
                say(paint("cancelled", sys.stderr, fg="yellow"))

    def _take(self, line: str, words: list[str]) -> None:
        match words:
            case []:
                pass
            case ["/help"]:
                for name, text in _COMMANDS.items():
                    put(f"{name:<10}{text}")
            case ["/sources"]:
                self._sources()
            case ["/sources", number]:
                self._passage(number)
            case ["/docs"]:
                self._documents()
            case ["/model"]:
                self._models()
            case [command, *_] if command.startswith("/"):
                say(f"there is no command {clean_line(command)}; /help lists them")
            case _:
                self._ask(line)

    def _ask(self, question: str) -> None:
        view = AnswerView()
        answer = view.show(self._box.ask_stream(question, collection=self._collection, mode=self._mode))
        self._shown = view.shown
        if sys.stderr.isatty():
            say(paint(note(answer), sys.stderr, dim=True))
        put()

    def _sources(self) -> None:
        if not self._shown:
            say("no answer with sources yet")
        for number, citation in enumerate(self._shown, 1):
            put_citation(number, citation)

    def _passage(self, number: str) -> None:
        if not (number.isdecimal() and 0 < int(number) <= len(self._shown)):
            say(f"the last answer has {len(self._shown)} sources")
            return
        citation = self._shown[int(number) - 1]
        where = citation.locator
        passage = self._box.document_text(citation.document_id, max(0, where.start - _AROUND), where.end + _AROUND)
        put(f"{paint(clean_line(citation.document), sys.stdout, bold=True)}, {place(where)}")
        text = Wrapped(width(), indent=4)
        text.write(passage.text)
        text.end()

    def _documents(self) -> None:
        found = self._box.documents().documents
        if not found:
            say("no documents yet; in another terminal: edge add PATH...")
            return
        for line in table(("name", "format", "passages"), [(d.name, d.format, d.chunks) for d in found]):
            put(line)

    def _models(self) -> None:
        status = self._box.status()
        put(f"writer    {clean_line(status.writer or 'none: answers are quotes alone')}")
        put(f"embedder  {clean_line(status.embedder or 'none')}")
        put(f"context   {status.context} tokens")


def history_of_user(paths: Paths) -> History:
    """The user's own file under the home, mode 0600; in memory alone where the home is not theirs to write."""
    directory = paths.home / "history"
    file = directory / str(os.getuid())
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))


def _typed(read: Callable[[], str]) -> Iterator[str]:
    """Lines typed at the prompt; ctrl-c drops the line, ctrl-d ends."""
    while True:
        try:
            yield read()
        except KeyboardInterrupt:
            say("ctrl-d leaves")
        except EOFError:
            return


def _prompt(paths: Paths) -> Callable[[], str]:
    """What reads one line: with history and completion, or plainly where the terminal cannot move its cursor."""
    if os.environ.get("TERM") in {None, "dumb"}:
        return lambda: input(_PROMPT)
    session: PromptSession[str] = PromptSession(
        history=history_of_user(paths), completer=WordCompleter(list(_COMMANDS), sentence=True)
    )
    return lambda: session.prompt(_PROMPT)


def converse(
    box: SyncClient, paths: Paths, *, collection: str = DEFAULT_COLLECTION, mode: AskMode = "auto"
) -> ExitCode:
    """Hold a conversation on this process's standard streams; returns the exit code."""
    talk = Conversation(box, collection=collection, mode=mode)
    if not sys.stdin.isatty():
        talk.run(iter(sys.stdin.readline, ""))
        return talk.exit_code
    status = box.status()
    say(f"{status.documents} documents. Ask a question; /help lists more, ctrl-c stops an answer, ctrl-d leaves.")
    talk.run(_typed(_prompt(paths)))
    return ExitCode.OK


@click.command(short_help="Ask in a conversation at the terminal.")
@click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="The collection to ask.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "extract"]),
    default="auto",
    show_default=True,
    help="extract: quote the documents, and let no model phrase the answer.",
)
@click.pass_context
def chat(ctx: click.Context, *, collection: str, mode: AskMode) -> None:
    """Ask question after question; each is answered from the documents, or the chat says that they do not say.

    Ctrl-c stops the answer that is being written, ctrl-d leaves. Without a terminal, one question a line is read from
    stdin.

    \b
    Example:
      edge chat
      printf 'What does E17 mean?\\n' | edge chat
    """
    paths = Paths.from_environment()
    with connect_sync(paths.socket) as box:
        ctx.exit(converse(box, paths, collection=collection, mode=mode))
