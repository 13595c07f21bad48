"""The error tree of the offline tools.

ToolError
├── SourceError  one source of one file did not give it; the next one is tried
├── FetchError   no source gave a file
├── BuildError   llama.cpp was not built, or what was built does not decode
└── SetupError   this machine lacks something that setting up needs
"""

from __future__ import annotations


class ToolError(Exception):
    """Root of the tree. A message says what happened and, after it, what to do about it."""


class SourceError(ToolError):
    pass


class FetchError(ToolError):
    pass


class BuildError(ToolError):
    pass


class SetupError(ToolError):
    pass
