"""PURE: the words and numbers of a failure, as those who are told can hold them."""

import re

from pyvatti import foreign

TRACE_NAME_LIMIT = 512
UNNAMED = "unknown failure"

_QUOTED_PROCESS = re.compile(r"process\s*>\s*'(.+)'")


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
