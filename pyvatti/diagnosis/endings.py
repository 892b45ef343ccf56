"""PURE: why a driver container ended badly, from its end and its last words.

What the cluster did to its pod is none of this module's business. The user's upload is blamed
only for a task of the transfer that ran and failed by itself.
"""

import re
from dataclasses import dataclass

from pyvatti.diagnosis.codes import (
    AGAIN_ELSEWHERE,
    MORE_MEMORY,
    by_machine,
    task_failure,
)
from pyvatti.diagnosis.last_words import Ending, LastWords, read_last_words
from pyvatti.diagnosis.wording import process_of
from pyvatti.models import ContainerEnd

CREDENTIALS_MISSING = 78  # EX_CONFIG of sysexits.h: the transfer's own script, without credentials
BAD_ARGUMENTS = 255  # of globflow's task: -1
APPLICATION_FAILED = 1  # of globflow's task: download, decryption or HTTP
KILLED, STOPPED_EARLY = 137, 143

_RAISE_MEMORY = "Raise DRIVER_MEMORY and submit again under a new id."
_CHECK_IMAGE = "Check NEXTFLOW_IMAGE and the templates."
_CHECK_UPLOAD = (
    "Check the Globus path, whether the upload or its key has expired, and the key handler."
)
_READ_LOG = "Read the driver's log in the record."

# What Nextflow says when it cannot start -> whom that concerns
_HINTS = (
    (
        re.compile(r"Remote resource not found"),
        "Check GLOBFLOW_REVISION and PGSC_CALC_REVISION, and that GitLab answers.",
    ),
    (
        re.compile(r"Conversion = '"),
        "Nextflow could not read its plugin registry: use the driver image, which has the plugins.",
    ),
    (re.compile(r"[Cc]redential"), "Check DRIVER_SERVICE_ACCOUNT and what it may do in Google."),
    (re.compile(r"has been already used"), AGAIN_ELSEWHERE),
)
_OTHER_START = "Nothing is wrong with the upload: tell the operator what Nextflow says."


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a container ended badly. `exit_code` is the failed task's own, else the container's."""

    reason: str
    message: str
    next_step: str
    exit_code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One of the two containers: its name in sentences and the beginning of its reasons."""

    title: str
    reason: str


_TRANSFER = _Part(title="data transfer", reason="Transfer")
_DRIVER = _Part(title="the workflow's driver", reason="Driver")


def transfer_failure(end: ContainerEnd) -> Failure:
    """Say why the data transfer (init container) failed."""
    if end.exit_code == CREDENTIALS_MISSING:
        return Failure(
            reason="CredentialsMissing",
            message="data transfer found no credentials",
            next_step="Somebody deleted the transfer Secret: submit again under a new id.",
            exit_code=end.exit_code,
        )
    return _by_kubelet(_TRANSFER, end) or _by_words(_TRANSFER, end)


def driver_failure(end: ContainerEnd) -> Failure:
    """Say why the calculation's driver (main container) ended badly, nobody else knowing."""
    return _by_kubelet(_DRIVER, end) or _by_words(_DRIVER, end)


def _by_kubelet(part: _Part, end: ContainerEnd) -> Failure | None:
    if end.reason == "OOMKilled":
        return _out_of_memory(part, end)
    if end.reason in ("StartError", "ContainerCannotRun") or end.exit_code in (126, 127):
        return Failure(
            reason=f"{part.reason}CannotStart",
            message=f"{part.title} could not be started",
            next_step=_CHECK_IMAGE,
            exit_code=end.exit_code,
        )
    return None


def _by_words(part: _Part, end: ContainerEnd) -> Failure:
    words = read_last_words(end.message, end.exit_code)
    if words.ending is Ending.TASK:
        return _transfer_task(words) if part is _TRANSFER else _calculation_task(words)
    if words.ending is Ending.HEAP:
        return _out_of_memory(part, end)
    if words.ending is Ending.STOPPED or end.exit_code == STOPPED_EARLY:
        return Failure(
            reason=f"{part.reason}Stopped",
            message=f"{part.title} was stopped from outside",
            next_step=AGAIN_ELSEWHERE,
            exit_code=end.exit_code,
        )
    if words.ending is Ending.START:
        return Failure(
            reason=f"{part.reason}CannotStart",
            message=f"{part.title} could not run: {words.line}",
            next_step=_hint(words.line),
            exit_code=end.exit_code,
        )
    return _without_words(part, end)


def _hint(line: str) -> str:
    return next((step for pattern, step in _HINTS if pattern.search(line)), _OTHER_START)


def _out_of_memory(part: _Part, end: ContainerEnd) -> Failure:
    return Failure(
        reason=f"{part.reason}OutOfMemory",
        message=f"{part.title} ran out of memory",
        next_step=_RAISE_MEMORY,
        exit_code=end.exit_code,
    )


def _without_words(part: _Part, end: ContainerEnd) -> Failure:
    was_killed = end.exit_code == KILLED
    said = "was killed" if was_killed else "failed"
    return Failure(
        reason=f"{part.reason}{'Killed' if was_killed else 'Failed'}",
        message=f"{part.title} {said} (exit {end.exit_code})",
        next_step=AGAIN_ELSEWHERE if was_killed else _READ_LOG,
        exit_code=end.exit_code,
    )


def _transfer_task(words: LastWords) -> Failure:
    code = words.exit_status
    reason, message, step = "TransferFailed", "data transfer failed", _READ_LOG
    if code is not None:
        message += f" (exit {code})"
    elif words.line:
        message += f": {words.line}"
    if "java.lang.OutOfMemoryError" in words.errors:
        reason, message, step = (
            "TransferOutOfMemory",
            "a step of the data transfer ran out of memory",
            MORE_MEMORY,
        )
    elif code == APPLICATION_FAILED:
        step = _CHECK_UPLOAD
    elif code == BAD_ARGUMENTS:
        reason, message = "TransferMisconfigured", "data transfer was started with bad arguments"
        step = "Check GLOBFLOW_REVISION and the templates."
    elif (known := by_machine(code)) is not None:
        reason, step = known.code, known.next_step
        message = f"data transfer: {known.message} (exit {code})"
    return Failure(reason=reason, message=message, next_step=step, exit_code=code)


def _calculation_task(words: LastWords) -> Failure:
    said = f"Error executing process > '{words.process}'" if words.process else ""
    failure = task_failure(
        words.exit_status, process_of(said), f"{said}\n{words.line}\n{words.errors}".strip()
    )
    return Failure(
        reason=failure.reason,
        message=failure.message,
        next_step=failure.next_step,
        exit_code=failure.exit_code,
    )
