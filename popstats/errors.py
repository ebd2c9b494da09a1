"""Every error of both packages, under one base class.

An error says what was expected, what came, where (file, column, first rows) and what to do.
"""

#: Exit status of every command of both packages that ends with one of these errors.
BAD_INPUT = 2
#: Exit status of a command of generate that stopped before its end; rerun it to resume.
STOPPED = 3


class PopstatsError(Exception):
    """Base class: catch this to catch everything that popstats or generate raise on purpose.

    Examples
    --------
    >>> import popstats
    >>> try:
    ...     popstats.load_population("no-such-table")
    ... except popstats.PopstatsError as error:
    ...     print(type(error).__name__, str(error)[:37])
    PopulationError no-such-table: no such file or folder
    """

    def __init__(self, message: str = "", *, on_command_line: str | None = None) -> None:
        super().__init__(message)
        self.on_command_line = on_command_line or message


class PopulationError(PopstatsError):
    """A table of subnetworks that cannot be read as a population."""


class PlanError(PopstatsError):
    """A plan (TOML) that cannot be carried out: unknown key, impossible regime, wrong type."""


class RunFolderError(PopstatsError):
    """A run folder that cannot be continued, read or written."""


class FitError(PopstatsError):
    """A model that cannot be fitted to this population as asked."""


class ConvergenceError(FitError):
    """A fit that its own diagnostics reject, where the caller required one that they accept."""
