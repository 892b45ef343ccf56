"""Why a run or its driver failed: a reason, a sentence and a next step. PURE."""

from pyvatti.diagnosis.codes import (
    Explanation,
    RunFailure,
    explain,
    run_failure,
)
from pyvatti.diagnosis.endings import Failure, driver_failure, transfer_failure
from pyvatti.diagnosis.last_words import decisive
from pyvatti.diagnosis.wording import UNNAMED, process_of, trace_exit, trace_name

__all__ = [
    "UNNAMED",
    "Explanation",
    "Failure",
    "RunFailure",
    "decisive",
    "driver_failure",
    "explain",
    "process_of",
    "run_failure",
    "trace_exit",
    "trace_name",
    "transfer_failure",
]
