"""Every deliberate exception of keepfit.

::

    KeepfitError
    ├── InvalidArgument (ValueError)      an argument that fit, Run or attach cannot take
    │   ├── InvalidData (ValueError)      data that cannot be trained on
    │   └── RateUnknown (AttributeError)  a rate over fractions of a fit, asked for outside of one
    ├── NotCompiled (ValueError)          the model was not compiled
    ├── CannotAttach (TypeError)          the model has a fit of its own, or is in use by another run
    ├── RunClosed (RuntimeError)          the run was closed; its model's fit has gone back or moved on
    ├── FitUnderWay (RuntimeError)        a fit of the run is under way: this was called from inside it
    ├── RecipeChanged (ValueError)        fit k was recorded with another recipe
    ├── PartitionFailed (RuntimeError)    a partition of the data could not be read
    │   └── PartitionChanged              a partition is not what it was when the fit began
    ├── StateNotKept (LookupError)        a state that retention has thinned out, or that never was
    ├── RunFolderError (OSError)
    │   ├── NotARun                       a folder that holds something else
    │   ├── FormatTooNew                  written by a newer keepfit
    │   ├── OtherModel                    written by a model with other variables
    │   ├── RunLocked                     another live process writes here
    │   ├── RunGone                       deleted or moved while the run was open
    │   ├── RunReadOnly                   the folder cannot be written
    │   ├── StoreFull                     no space left while writing
    │   └── StoreFailed                   another error of the file system while writing
    ├── DamagedObject (OSError)           stored bytes do not match their hash
    └── EngineError (RuntimeError)        a backend could not do what was asked

    KeepfitWarning (UserWarning)          said once, and recorded in the journal

Each class is also the builtin it specialises and carries its facts as
attributes. A message says what happened, what was expected, what was received,
what to do, and whether anything was changed.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any


class KeepfitError(Exception):
    """Base of every deliberate exception; keyword facts become attributes."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        for name, value in facts.items():
            setattr(self, name, value)


class InvalidArgument(KeepfitError, ValueError):
    """An argument that cannot be taken; nothing was changed."""


class InvalidData(InvalidArgument):
    """Data that cannot be trained on; nothing was changed."""


class RateUnknown(InvalidArgument, AttributeError):
    """A learning rate over fractions of a fit has no value before one begins; nothing was changed.

    An AttributeError, so that ``getattr(optimizer, "learning_rate", None)`` finds none.
    """


class NotCompiled(KeepfitError, ValueError):
    """The model has no loss and optimizer yet; nothing was changed."""


class CannotAttach(KeepfitError, TypeError):
    """The model cannot be attached, or another live run has its variables."""


class RunClosed(KeepfitError, RuntimeError):
    """The run was closed; nothing was changed."""


class FitUnderWay(KeepfitError, RuntimeError):
    """A fit of the run is under way, and this call came from inside it; nothing was changed."""


class RecipeChanged(KeepfitError, ValueError):
    """A fit was recorded with another recipe; nothing was changed.

    Attributes:
        fit: Number of the fit.
        differences: Name of each difference -> (recorded, now).
    """

    fit: int
    differences: dict[str, tuple[Any, Any]]


class PartitionFailed(KeepfitError, RuntimeError):
    """A partition of the data could not be read; the model holds the last finished step.

    Attributes:
        partition: Its number, from 0, as it was given.
        name: What it is called: its file, or its function.
        sample: The first sample of it that was needed, from 0 within the partition; None if none was yet.
    """

    partition: int
    name: str
    sample: int | None


class PartitionChanged(PartitionFailed):
    """A partition is not what it was when the fit began: its size, content, columns or dtypes differ."""


class StateNotKept(KeepfitError, LookupError):
    """The state asked for is not stored (any more); nothing was changed."""


class RunFolderError(KeepfitError, OSError):
    """Something about the folder of a run; nothing was changed."""


class NotARun(RunFolderError):
    """The folder exists and holds something other than a run."""


class FormatTooNew(RunFolderError):
    """The run was written by a newer keepfit."""


class OtherModel(RunFolderError):
    """The run was written by a model with other variables."""


class RunLocked(RunFolderError):
    """Another live process writes to this run."""


class RunGone(RunFolderError):
    """The folder was deleted or moved while the run was open; the training state is whole in memory."""


class RunReadOnly(RunFolderError):
    """The folder cannot be written."""


class StoreFull(RunFolderError):
    """No space was left while writing; the training state is whole in memory."""


class StoreFailed(RunFolderError):
    """The file system refused a write; the training state is whole in memory."""


class DamagedObject(KeepfitError, OSError):
    """Stored bytes do not match their hash."""


class EngineError(KeepfitError, RuntimeError):
    """A backend could not do what was asked; the model holds the last finished step."""


class KeepfitWarning(UserWarning):
    """Something a user should know; what was done is in the message and in the journal."""


_PACKAGE = str(Path(__file__).parent) + os.sep


def warn(message: str, category: type[Warning] = KeepfitWarning) -> None:
    """Warn at the line outside keepfit that led here, where Python's filters and notebooks look for it."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
