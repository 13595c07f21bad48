"""``edge score``: how probable each of some choices is after a prompt."""

from __future__ import annotations

import click

from edge_runtime.cli.output import clean_line, put, put_json, table
from edge_runtime.client import connect_sync
from edge_runtime.engine_protocol import ScoreMessage, ScoreRequest
from edge_runtime.paths import Paths


@click.command(short_help="Say how probable each of some choices is.")
@click.argument("text")
@click.option("--choice", "choices", multiple=True, required=True, help="One of them; give it again for each.")
@click.option("--task", help="What the choices mean; the text alone is then what is judged.")
@click.option("--json", "as_json", is_flag=True, help="The choices as JSON, in the order given.")
def score(*, text: str, choices: tuple[str, ...], task: str | None, as_json: bool) -> None:
    """Say how probable each choice is as the reply to a text, the most probable first.

    With --task, what the model says of each choice where there is nothing to judge is divided out.

    \b
    Example:
      edge score "The gland leaks." --task "Which kind of trouble?" --choice mechanical --choice electrical
    """
    messages = [ScoreMessage(role="system", content=task)] if task else []
    request = ScoreRequest(messages=[*messages, ScoreMessage(role="user", content=text)], choices=list(choices))
    with connect_sync(Paths.from_environment().socket) as box:
        found = box.score(request)
    if as_json:
        put_json(found)
        return
    ordered = sorted(found.choices, key=lambda one: -one.probability)
    rows = [(f"{one.probability:.3f}", f"{one.logprob:.2f}", clean_line(one.text)) for one in ordered]
    for line in table(("probability", "logprob", "choice"), rows, shrink=2):
        put(line)
