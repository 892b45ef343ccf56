"""PURE: turns exit codes and error reports of a run into a reason, a sentence and a next step.

No states and no time limits (those are the policy's), and nothing about pods.
Sources: PGScatalog/pygscatalog `pgsexceptions.py`, chrchang/plink-ng `plink2_base.h`,
Google Batch "Troubleshooting: task exit codes", ebi-gdp/docs "Pipeline error codes".
"""

import re
from dataclasses import dataclass

from pyvatti import foreign
from pyvatti.models import Run, RunStatus

TRACE_NAME_LIMIT = 512
UNNAMED = "unknown failure"

_QUOTED_PROCESS = re.compile(r"process\s*>\s*'(.+)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What an exit code means. `code` is CamelCase, `short` a few words, the rest sentences."""

    code: str
    message: str
    next_step: str
    short: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailure:
    """Why a run failed. `exit_code` is the task's own, `trace_exit` the one for the backend."""

    reason: str
    message: str
    next_step: str
    exit_code: int | None
    trace_name: str
    trace_exit: int


def trace_exit(code: int | None) -> int:
    """Give the exit code of a failure as the backend can hold it: 1..127, never null."""
    return code if code is not None and 1 <= code <= 127 else 1


def trace_name(text: str) -> str:
    """Give a line of at most 512 characters, never empty, without markup and control characters."""
    return foreign.plain_line(text, TRACE_NAME_LIMIT) or UNNAMED


def process_of(error_report: str) -> str | None:
    """Find the failed process, quoted in line 1 of an error report: `A:B:MATCH_COMBINE (1)`."""
    found = _QUOTED_PROCESS.search(first_line(error_report))
    return found.group(1).strip() or None if found else None


def first_line(text: str) -> str:
    """Give the first line that is not blank, or an empty text."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def explain(exit_code: int | None, process: str | None, report: str) -> Explanation:
    """Say what a failed run's exit code means.

    Codes 2 to 8 are plink2's only if one of its processes failed. Where the code says nothing
    (none, 0, 1, 255), an exception of the PGS Catalog utilities named in the report does.
    """
    by_plink = process is not None and _is_plink(process)
    table = _PLINK if by_plink else _PGSCATALOG
    if exit_code in table:
        return table[exit_code]
    if exit_code in _SIGNALS or exit_code in _BATCH:
        return _SIGNALS.get(exit_code) or _BATCH[exit_code]
    if exit_code is not None and 130 <= exit_code <= 145:
        return _killed(exit_code)
    if exit_code in (None, 0):
        return _named_exception(report) or _without_code(process, report)
    if exit_code in (1, 255):
        return _named_exception(report) or (_GENERIC if exit_code == 1 else _OTHER_PGS)
    return _GENERIC


def run_failure(run: Run) -> RunFailure:
    """Say why a FAILED or CANCELLED run failed. `exit_status` counts only for a FAILED one."""
    if run.status is RunStatus.CANCELLED:
        return RunFailure(
            reason="Cancelled",
            message="The run was cancelled in Seqera.",
            next_step="Submit again under a new id if that was not meant.",
            exit_code=None,
            trace_name="cancelled in Seqera",
            trace_exit=1,
        )
    code = run.exit_status or None  # 0 says nothing about a failure
    process = process_of(run.error_report) or process_of(run.error_message)
    explanation = explain(code, process, run.error_report or run.error_message)
    return RunFailure(
        reason=explanation.code,
        message=_sentence(explanation, code, process),
        next_step=explanation.next_step,
        exit_code=run.exit_status,
        trace_name=trace_name(_named(run, explanation, code, process)),
        trace_exit=trace_exit(code),
    )


def _sentence(explanation: Explanation, code: int | None, process: str | None) -> str:
    step = f"step {trace_name(process)}" if process else ""
    exit_code = f"exit code {code}" if code is not None else ""
    where = ", ".join(part for part in (step, exit_code) if part)
    return f"{explanation.message} ({where})" if where else explanation.message


def _named(run: Run, explanation: Explanation, code: int | None, process: str | None) -> str:
    said = first_line(run.error_report) or first_line(run.error_message)
    if code is None:
        return said or explanation.message
    name = process or said or explanation.message
    if 1 <= code <= 127:
        return name
    words = f" (exit {code}, {explanation.short})"
    return trace_name(name)[: TRACE_NAME_LIMIT - len(words)] + words


def _is_plink(process: str) -> bool:
    return process.rpartition(":")[2].startswith("PLINK2_")


def _named_exception(report: str) -> Explanation | None:
    known = (item for item in _PGSCATALOG.values() if re.search(rf"\b{item.code}\b", report))
    return next(known, None)


def _without_code(process: str | None, report: str) -> Explanation:
    if first_line(report) == "SIGTERM":
        return _STOPPED
    return _GENERIC if process else _WORKFLOW


def _killed(exit_code: int) -> Explanation:
    return Explanation(
        code="TaskKilled",
        message="A step was killed from outside.",
        next_step=_AGAIN,
        short=f"signal {exit_code - 128}",
    )


_AGAIN = (
    "The pipeline had tried again by itself; submit again under a new id, and report it if it"
    " comes back."
)
_LATER = "Submit again later, under a new id."
_CHECK_BUILD = "Check that target_build is the build of the genomes, and impute them."
_OTHER_SCORE = "Leave this score out or choose another one."
_REPORT = "Submit again under a new id, and report it if it comes back."
_MORE_MEMORY = "Tell the operator: a higher memory limit (MAX_MEMORY) may be needed."


def _row(code: str, message: str, next_step: str, short: str) -> Explanation:
    return Explanation(code=code, message=message, next_step=next_step, short=short)


_GENERIC = _row(
    "TaskFailed",
    "A step of the calculation stopped without a known reason.",
    "Read the error report of the run in Seqera.",
    "a step failed",
)
_WORKFLOW = _row(
    "WorkflowFailed",
    "The workflow stopped outside of any step: its script, configuration or a plug-in failed.",
    "Read the error report of the run in Seqera, then tell the operator.",
    "the workflow failed",
)
_STOPPED = _row(
    "DriverStopped",
    "The workflow was stopped from outside before it had finished.",
    "Nothing is wrong with the request: submit it again under a new id.",
    "stopped",
)
_OTHER_PGS = _row(
    "PGSCatalogError",
    "A tool of the PGS Catalog failed, for example while moving variants to another build.",
    "Read the error report of the run in Seqera and report it.",
    "error in a PGS Catalog tool",
)

_PLINK: dict[int | None, Explanation] = {
    2: _row("PlinkOutOfMemory", "plink2 ran out of memory.", _MORE_MEMORY, "out of memory"),
    3: _row("PlinkOpenFailed", "plink2 could not open a file.", _REPORT, "file not opened"),
    4: _row("PlinkReadFailed", "plink2 could not read a file.", _REPORT, "file not read"),
    5: _row(
        "PlinkWriteFailed",
        "plink2 could not write a file.",
        "Tell the operator: more disk may be needed.",
        "file not written",
    ),
    6: _row(
        "PlinkMalformedInput",
        "plink2 found malformed genotype files.",
        "Check the genotype files and upload them again.",
        "malformed input",
    ),
    7: _row(
        "PlinkInconsistentInput",
        "plink2 found genotype files that contradict each other.",
        "Check that the genotype files belong together and upload them again.",
        "inconsistent input",
    ),
    8: _row(
        "PlinkInvalidCommandLine",
        "plink2 was called with a wrong command line.",
        "Report it: the pipeline or its version is at fault.",
        "wrong command line",
    ),
}

_PGSCATALOG: dict[int | None, Explanation] = {
    8: _row(
        "ScoreDownloadError",
        "A score file could not be downloaded from the PGS Catalog.",
        _LATER,
        "score not downloaded",
    ),
    9: _row(
        "ScoreFormatError",
        "A score file of the PGS Catalog could not be read.",
        _OTHER_SCORE,
        "score file unreadable",
    ),
    10: _row(
        "ScoreChecksumError",
        "A downloaded score file stayed corrupt.",
        _LATER,
        "score file corrupt",
    ),
    11: _row(
        "QueryError",
        "The PGS Catalog gave no valid answer.",
        _LATER,
        "no valid answer of the PGS Catalog",
    ),
    12: _row(
        "InvalidAccessionError",
        "An identifier is not in the PGS Catalog.",
        "Correct the score, publication or trait identifiers.",
        "identifier not in the PGS Catalog",
    ),
    13: _row(
        "DuplicateMatchError",
        "One variant of a score matched twice in the genomes.",
        "Remove duplicate variants from the genomes.",
        "variant matched twice",
    ),
    14: _row(
        "MatchRateError",
        "Too few variants of the scores were found in the genomes.",
        _CHECK_BUILD,
        "too few variants found",
    ),
    15: _row(
        "ZeroMatchesError",
        "No score had enough of its variants in the genomes.",
        _CHECK_BUILD,
        "no score matched well enough",
    ),
    16: _row(
        "MatchValueError",
        "The variants hold values that cannot be matched, such as mixed chromosomes.",
        "Check chromosomes and alleles in the variant file.",
        "bad values in the variants",
    ),
    17: _row(
        "BuildError",
        "A score file disagrees about the genome build.",
        "Choose another score or another target_build.",
        "genome build disagrees",
    ),
    19: _row(
        "GenomesNotFound",
        "The genotype files were not found.",
        _REPORT,
        "genotype files missing",
    ),
    20: _row(
        "SamplesheetFormatError",
        "The samplesheet was not understood.",
        "Report it: this service is at fault.",
        "samplesheet not understood",
    ),
    21: _row(
        "EffectTypeError",
        "A score has an effect type that is not supported.",
        _OTHER_SCORE,
        "effect type not supported",
    ),
}

_SIGNALS: dict[int | None, Explanation] = {
    104: _row("TaskKilled", "A step lost its connection and was killed.", _AGAIN, "killed"),
    137: _row(
        "TaskOutOfMemory",
        "A step was killed, most often because it needed more memory than allowed.",
        f"{_AGAIN} {_MORE_MEMORY}",
        "out of memory or killed",
    ),
    143: _row("TaskStopped", "A step was stopped from outside.", _AGAIN, "stopped"),
}

_RETRY_BATCH = "Nothing is wrong with the request: submit it again under a new id."
_BATCH: dict[int | None, Explanation] = {
    50001: _row(
        "MachinePreempted", "The spot machine of a step was taken away.", _RETRY_BATCH, "preempted"
    ),
    50002: _row(
        "MachineSilent", "The machine of a step stopped reporting.", _RETRY_BATCH, "no report"
    ),
    50003: _row("MachineRebooted", "The machine of a step was rebooted.", _RETRY_BATCH, "rebooted"),
    50004: _row(
        "MachineUnresponsive",
        "The machine of a step did not respond any more.",
        _RETRY_BATCH,
        "unresponsive",
    ),
    50005: _row(
        "TaskOverTime",
        "A step ran longer than allowed.",
        "Tell the operator: a longer limit (MAX_TIME) may be needed.",
        "over its time limit",
    ),
    50006: _row(
        "MachineRecreated",
        "The machine of a step was recreated while it ran.",
        _RETRY_BATCH,
        "machine recreated",
    ),
}
