"""What brings a simulated driver to its end before it is done."""


class Terminated(Exception):
    """SIGTERM arrived."""


class HeapExhausted(Exception):
    """Java has no memory left and ends at once."""


class TaskFailed(Exception):
    """A task of the run failed."""

    def __init__(self, exit_status: int | None, report: str, message: str = "") -> None:
        super().__init__(message or report.partition("\n")[0])
        self.exit_status = exit_status
        self.report = report
