"""Everything that lowerbound raises on purpose.

    LowerboundError
    ├── UsageError            what was asked for cannot be done as asked              exit code 2
    │   ├── RecipeError       a recipe has a wrong key, type or value
    │   ├── ShapeError        parts that do not fit together, or data that do not fit the model
    │   ├── DataError         data that are missing, unreadable or not what they should be
    │   ├── RunError          a run folder that is absent, in use, or belongs to another recipe
    │   ├── RegistryError     a registry, name, version or alias that is absent, or does not allow it
    │   │   └── ConflictError somebody else was first
    │   └── TamperedError     a file whose content is not what was written
    ├── NotSupportedError     a family without the verb that was asked for            exit code 2
    │   └── NotABoundError    a quantity that would look like a bound and is none
    ├── IncompatibleError     a version whose codes mean something else than those kept   exit code 1
    ├── ParityError           exported files that do not do what their model does     exit code 1
    ├── NotSavedError         a file could not be written (a full disk)               exit code 3
    └── TrainingFailedError   training could not go on                                exit code 3

Each message is one sentence: what was given, what was expected, what to do.
"""


class LowerboundError(Exception):
    """Base of all errors that are raised on purpose; `exit_code` is the command line's."""

    exit_code = 2


class UsageError(LowerboundError):
    """What was asked for cannot be done as asked."""


class RecipeError(UsageError):
    """A recipe has a wrong key, type or value."""


class ShapeError(UsageError):
    """Parts that do not fit together, or data that do not fit the model."""


class DataError(UsageError):
    """Data that are missing, unreadable or not what they should be."""


class RunError(UsageError):
    """A run folder that is absent, in use, or belongs to another recipe."""


class RegistryError(UsageError):
    """A registry, name, version or alias that is absent, or does not allow what was asked for."""


class ConflictError(RegistryError):
    """Somebody else was first: what one meant to change is not what it was."""


class TamperedError(UsageError):
    """A file whose content is not what was written."""


class NotSupportedError(LowerboundError):
    """A family, distribution or objective was asked for something it does not have."""


class NotABoundError(NotSupportedError):
    """A quantity that would look like a bound on log p(x) and is none."""


class TooFewError(NotSupportedError):
    """Too few rows for the number that was asked for."""


class NotSavedError(LowerboundError):
    """A file could not be written; what was there before stays as it is."""

    exit_code = 3


class IncompatibleError(LowerboundError):
    """A version whose codes are not those that a deployment has stored."""

    exit_code = 1


class ParityError(LowerboundError):
    """Exported files that do not do what their model does; they are not kept."""

    exit_code = 1


class TrainingFailedError(LowerboundError):
    """Training could not go on; what was saved before stays as it is."""

    exit_code = 3
