"""The error tree of the models package.

    ModelError
    ├── CatalogError       a catalogue entry is wrong
    ├── UnknownModelError  no such name in the catalogue
    ├── NotInstalledError  in the catalogue, but its files are not here
    ├── DamagedFileError   a file is missing, or its bytes are not those that its digest names
    └── StoreError         the store would grow past its quota, or the disk refused: full, read-only, not permitted

A message says what happened and, after it, what to do about it.
"""

from __future__ import annotations


class ModelError(Exception):
    """Root of the tree."""


class CatalogError(ModelError):
    pass


class UnknownModelError(ModelError):
    pass


class NotInstalledError(ModelError):
    pass


class DamagedFileError(ModelError):
    pass


class StoreError(ModelError):
    pass
