"""PURE: reads what Nextflow says last in a driver container.

It ends with 1 whatever failed (seen with 25.10.4): what happened stands in the log alone. A
kubelet keeps the last 2,048 bytes of it, so that the beginning of a report may be cut off.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

SAID_LIMIT = 1200  # characters of what is kept as evidence
LINE_LIMIT = 300  # of one line that is quoted
HEAP_EXHAUSTED = 3  # what -XX:+ExitOnOutOfMemoryError ends with

_PROCESS = re.compile(r"Error executing process > '(.+)'")
_STATUS = re.compile(r"terminated with an error exit status \((-?\d{1,10})\)")
_COMMAND_STATUS = re.compile(r"^Command exit status:\s*\n\s*(-?\d{1,10})\s*$", re.MULTILINE)
_SECTION = re.compile(r"^(?:Command error|Command exit status|Work dir):\s*$", re.MULTILINE)
_HEAP = re.compile(r"^.*java\.lang\.OutOfMemoryError.*", re.MULTILINE)
_STOPPED = re.compile(r"^.*Killing running tasks.*", re.MULTILINE)
_START = re.compile(r"^(?:ERROR ~|Remote resource not found).*", re.MULTILINE)


class Ending(StrEnum):
    """What ended a driver, as its log tells it."""

    TASK = "task"  # a task of the workflow failed
    HEAP = "heap"  # Nextflow's own memory was exhausted
    STOPPED = "stopped"  # it was told to stop
    START = "start"  # it could not start, or go on with, the workflow
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWords:
    """What the end of a log says. `line` is quoted to people; the rest is that of a failed task.

    `exit_status` is the task's own code, None where it never ran to an end or was cut off.
    """

    ending: Ending
    line: str = ""
    process: str | None = None
    exit_status: int | None = None
    errors: str = ""


def read_last_words(text: str, exit_code: int) -> LastWords:
    """Say what ended a driver, from the end of its log and the exit code of its container."""
    if exit_code == HEAP_EXHAUSTED:
        return LastWords(ending=Ending.HEAP, line=_first(_HEAP, text))
    if _PROCESS.search(text) or _SECTION.search(text):
        return _task(text)
    if line := _first(_HEAP, text):
        return LastWords(ending=Ending.HEAP, line=line)
    # What it says first: an error of the workflow stops the tasks too, and a signal may end in one.
    either = [(found.start(), ending) for ending, found in _stopped_or_not(text) if found]
    if not either:
        return LastWords(ending=Ending.UNKNOWN)
    at, ending = min(either)
    return LastWords(ending=ending, line=text[at:].partition("\n")[0].strip()[:LINE_LIMIT])


def _stopped_or_not(text: str) -> tuple[tuple[Ending, re.Match[str] | None], ...]:
    return (Ending.STOPPED, _STOPPED.search(text)), (Ending.START, _START.search(text))


def decisive(text: str) -> str:
    """Give the part of a log's end that says why: at most SAID_LIMIT characters.

    Of a failed task its name, its cause and its own errors; else from Nextflow's error line on;
    the end where there is none.
    """
    process = _PROCESS.search(text)
    if process or _SECTION.search(text):
        return _told(process[0] if process else "", _task(text))
    if found := _HEAP.search(text) or _START.search(text):
        return text[found.start() :][:SAID_LIMIT].strip()
    return text[-SAID_LIMIT:].strip()


def _told(head: str, words: LastWords) -> str:
    start = ": ".join(part for part in (head[:LINE_LIMIT], words.line) if part)
    if not words.errors:
        return start or "a task failed"
    title = "; Command error: " if start else "Command error: "
    return start + title + words.errors[len(start) + len(title) - SAID_LIMIT :]


def _task(text: str) -> LastWords:
    process = _PROCESS.search(text)
    text = text[process.start() :] if process else text  # before it: tries of other tasks
    status = _STATUS.search(text) if process else _COMMAND_STATUS.search(text)
    return LastWords(
        ending=Ending.TASK,
        line=_cause_in(text)[:LINE_LIMIT],
        process=process[1].strip() or None if process else None,
        exit_status=int(status[1]) if status else None,
        errors=_errors_in(text, is_cut=process is None),
    )


def _cause_in(text: str) -> str:
    """Give what stands under `Caused by:`, up to a blank line, on one line."""
    lines = text.partition("\nCaused by:\n")[2].split("\n")
    end = next((at for at, line in enumerate(lines) if not line.strip()), len(lines))
    return " ".join(" ".join(lines[:end]).split())


def _errors_in(text: str, *, is_cut: bool) -> str:
    """Give what stands between `Command error:`, which may be cut off, and `Work dir:`."""
    before, title, after = f"\n{text}".partition("\nCommand error:\n")
    errors = after if title or not is_cut else before
    return errors.partition("\nWork dir:")[0].strip()


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[0].strip()[:LINE_LIMIT] if found else ""
