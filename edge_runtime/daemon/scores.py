"""Probabilities of choices after a prompt, from their log-probabilities with and without something to judge. Pure.

With ``L(c)`` the log-probability of choice ``c`` summed over its tokens, and ``L0(c)`` the same after the prompt whose
content is "N/A", the probabilities are ``softmax((L - L0) / temperature)``. That is contextual calibration (Zhao et al.
2021, "Calibrate Before Use", arXiv:2102.09690) with its matrix ``diag(p0)^-1`` and no bias; for a choice of several
tokens it is domain-conditional PMI (Holtzman et al. 2021, "Surface Form Competition", arXiv:2104.08315), which also
takes back what a long or a rare wording costs. Without a prior ``L0`` is zero, and long choices are at a disadvantage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge_runtime.engine_protocol import ScoreMessage, ScoreRequest
from edge_runtime.errors import RequestError

NO_CONTENT = "N/A"


def probabilities(
    logprobs: Sequence[float], prior: Sequence[float] | None = None, *, temperature: float = 1.0
) -> list[float]:
    """Of each choice; they add up to 1. ``prior`` None: none is divided out."""
    scores = [
        (here - before) / temperature for here, before in zip(logprobs, prior or [0.0] * len(logprobs), strict=True)
    ]
    most = max(scores)
    weights = [math.exp(score - most) for score in scores]
    return [weight / sum(weights) for weight in weights]


def check(request: ScoreRequest) -> None:
    """
    Raises:
        RequestError: no prompt or two of them, or choices that are blank or the same.
    """
    if (request.prompt is None) == (request.messages is None):
        raise RequestError("give either prompt or messages, and not both", param="prompt")
    seen: dict[str, int] = {}
    for index, choice in enumerate(request.choices):
        if not choice.strip():
            raise RequestError(f"choices[{index}] is blank; give it a text", param=f"choices[{index}]")
        if choice in seen:
            raise RequestError(
                f"choices[{index}] is choices[{seen[choice]}] again; give each once", param=f"choices[{index}]"
            )
        seen[choice] = index


def without_content(request: ScoreRequest) -> ScoreRequest | None:
    """The same request with nothing to judge; None where no prior is wanted, or it is not known what is judged.

    Raises:
        RequestError: ``calibration.content`` is not in the prompt.
    """
    wanted = request.calibration
    if wanted is not None and not wanted.prior:
        return None
    content = wanted.content if wanted is not None else None
    if content is None:
        return _without_last(request)
    texts = [request.prompt] if request.prompt is not None else [one.content for one in request.messages or ()]
    if not any(content in (text or "") for text in texts):
        raise RequestError(
            "calibration.content is not in the prompt; give the part that is judged, word for word",
            param="calibration.content",
        )
    if request.prompt is not None:
        return _ask(request, prompt=request.prompt.replace(content, NO_CONTENT))
    return _ask(
        request,
        messages=[
            ScoreMessage(role=one.role, content=one.content.replace(content, NO_CONTENT))
            for one in request.messages or ()
        ],
    )


def _without_last(request: ScoreRequest) -> ScoreRequest | None:
    """What a conversation judges is its last user message, if something was said before it that tells what to do."""
    messages = request.messages or []
    if len(messages) < 2 or messages[-1].role != "user":
        return None
    return _ask(request, messages=[*messages[:-1], ScoreMessage(role="user", content=NO_CONTENT)])


def _ask(
    request: ScoreRequest, *, prompt: str | None = None, messages: list[ScoreMessage] | None = None
) -> ScoreRequest:
    return ScoreRequest(model=request.model, prompt=prompt, messages=messages, choices=request.choices)
