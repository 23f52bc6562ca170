"""Every error that a user can meet, as one tree.

::

    WorkbenchError                  exit code 1
    ├── UserInputError              exit code 2   the request is wrong; change it
    │   ├── UnknownModel
    │   ├── UnknownOption           a sampler, format or setting that does not exist
    │   ├── InvalidMedia            a file that is missing, empty or corrupt
    │   ├── InvalidDatabase
    │   ├── UnsafeSQL               SQL that would do more than read
    │   ├── QueryFailed             SQL that the database refused
    │   ├── QueryTimeout
    │   └── SettingsError
    ├── DoesNotFit                  exit code 3   not enough memory; carries the plan
    │   └── WaitedTooLong           the memory that is needed stayed in use
    ├── Unavailable                 exit code 4   a model, engine or program is missing
    │   ├── EngineMissing
    │   ├── ModelMissing
    │   ├── ChecksumMismatch
    │   └── SourceUnreachable
    ├── ProviderError               exit code 5   a remote provider failed
    └── Cancelled                   exit code 1   the user stopped it

A message is one line that says what is wrong; ``remedy`` is one line that says what to do.
Command line, app and HTTP all print ``str(error)``, which is both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from workbench.memory.plan import MemoryPlan


class WorkbenchError(Exception):
    """Base of all errors that are shown to a user without a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UserInputError(WorkbenchError, ValueError):
    """The request itself is wrong."""

    exit_code = 2


class UnknownModel(UserInputError):
    """No catalogue entry, path or hub name matches."""


class UnknownOption(UserInputError):
    """A parameter has a value that nothing here can honour."""


class InvalidMedia(UserInputError):
    """An audio or picture file is missing, empty or cannot be decoded."""


class InvalidDatabase(UserInputError):
    """The path or URL is not a database that can be read."""


class UnsafeSQL(UserInputError):
    """The statement would do more than read, or cannot be proved to only read."""


class QueryFailed(UserInputError):
    """The database refused the statement; the message is the database's own."""


class QueryTimeout(UserInputError):
    """The statement ran longer than its limit and was killed."""


class SettingsError(UserInputError):
    """A setting in the environment or in workbench.toml is wrong."""


class DoesNotFit(WorkbenchError):
    """The model needs more memory than is free, even after idle models were freed."""

    exit_code = 3

    def __init__(self, message: str, remedy: str = "", plan: MemoryPlan | None = None) -> None:
        super().__init__(message, remedy)
        self.plan = plan


class WaitedTooLong(DoesNotFit):
    """The memory that a request waits for stayed in use."""


class Unavailable(WorkbenchError):
    """Something that the request needs is not installed here."""

    exit_code = 4


class EngineMissing(Unavailable):
    """The Python package behind an engine is not installed."""


class ModelMissing(Unavailable):
    """The model's files are not here and may not or cannot be fetched."""


class ChecksumMismatch(Unavailable):
    """A file's sha256 is not the one in the catalogue."""


class SourceUnreachable(Unavailable):
    """No source of the model could be reached."""


class ProviderError(WorkbenchError):
    """A remote provider refused, failed or timed out."""

    exit_code = 5


class Cancelled(WorkbenchError):
    """The work was stopped on request; what was produced until then is kept."""
