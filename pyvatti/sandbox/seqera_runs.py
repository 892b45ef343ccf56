"""The runs a stand-in Seqera knows: one state machine behind its trace protocol and its REST API.

No HTTP here. Timing as in the open community server: 190 s of silence, then UNKNOWN; a day, then
`complete` is filled in. A run that speaks again is RUNNING again; a final status stays.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

SILENCE = timedelta(seconds=190)
FORGOTTEN = timedelta(days=1)
TERMINAL = ("SUCCEEDED", "FAILED", "CANCELLED")
MESSAGE_LIMIT = 255

# Null in the rows of a real list, although the specification marks no field nullable
HIDDEN = (
    "ownerId",
    "workDir",
    "userName",
    "commandLine",
    "launchId",
    "configFiles",
    "params",
    "configText",
    "manifest",
    "nextflow",
    "stats",
    "deleted",
    "peakLoadCpus",
    "peakLoadTasks",
    "peakLoadMemory",
    "homeDir",
    "container",
    "repository",
    "containerEngine",
    "scriptFile",
)
SHOWN = (
    "id",
    "submit",
    "start",
    "complete",
    "dateCreated",
    "lastUpdated",
    "runName",
    "sessionId",
    "profile",
    "commitId",
    "scriptId",
    "revision",
    "projectName",
    "scriptName",
    "status",
    "errorMessage",
    "errorReport",
    "projectDir",
    "launchDir",
    "duration",
    "exitStatus",
    "resume",
    "success",
)
_KEYWORDS = {
    "runName": "runName",
    "workflowId": "id",
    "sessionId": "sessionId",
    "projectName": "projectName",
    "username": "userName",
    "status": "status",
}


class Refused(Exception):
    """The server refuses a call with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class RunRow:
    """One run. `heard` is None for a row no client speaks for: it never falls silent."""

    key: str
    workflow: dict[str, Any]
    heard: datetime | None = None
    progress: dict[str, Any] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether the status stays."""
        return self.workflow["status"] in TERMINAL

    def listed(self) -> dict[str, Any]:
        """Give the row as a list shows it."""
        return self.workflow | dict.fromkeys(HIDDEN)


class Runs:
    """All runs of one server. `advance` moves its clock."""

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or (lambda: datetime.now(UTC))
        self._offset = timedelta(0)
        self._reserved: dict[str, tuple[str, str]] = {}
        self._rows: dict[str, RunRow] = {}

    @property
    def now(self) -> datetime:
        """The server's time (UTC)."""
        return self._clock() + self._offset

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._offset += timedelta(seconds=seconds)

    # Trace protocol

    def reserve(self, session: str, name: str) -> str:
        """Give an id for a run that is about to begin; there is no row yet."""
        key = uuid4().hex[:14]
        self._reserved[key] = (session, name)
        return key

    def begin(self, key: str, said: dict[str, Any]) -> None:
        """Make the row. A pair of session and run name that exists already is refused."""
        if key not in self._reserved:
            raise Refused(404, f"Unknown workflow: {key}")
        pair = (str(said.get("sessionId")), str(said.get("runName")))
        if pair in ((row.workflow["sessionId"], row.workflow["runName"]) for row in self.all()):
            raise Refused(400, f"Workflow run already exists: {pair[1]}")
        started = said.get("start") or stamp(self.now)
        known = {name: said.get(name) for name in (*SHOWN, *HIDDEN)}
        times = {"submit": started, "start": started, "dateCreated": stamp(self.now)}
        row = known | times | {"id": key, "status": "RUNNING", "complete": None, "success": None}
        self._rows[key] = RunRow(key, row, heard=self.now)
        self._touch(self._rows[key])

    def hear(self, key: str, progress: Any) -> None:
        """Take a progress or heartbeat call."""
        row = self._speaking(key)
        row.progress = progress if isinstance(progress, dict) else row.progress
        if row.workflow["status"] == "UNKNOWN":
            row.workflow |= {"status": "RUNNING", "complete": None, "duration": None}
        self._touch(row)

    def complete(self, key: str, said: dict[str, Any]) -> None:
        """End a run by its `success`."""
        row = self._speaking(key)
        message = said.get("errorMessage")
        row.workflow |= {
            "status": "SUCCEEDED" if said.get("success") else "FAILED",
            "success": bool(said.get("success")),
            "complete": said.get("complete") or stamp(self.now),
            "duration": said.get("duration"),
            "exitStatus": said.get("exitStatus"),
            "errorMessage": message[:MESSAGE_LIMIT] if isinstance(message, str) else None,
            "errorReport": said.get("errorReport"),
        }
        self._touch(row)

    def _speaking(self, key: str) -> RunRow:
        row = self.get(key)
        if row.is_final:
            raise Refused(400, f"Workflow {key} is {row.workflow['status']} already")
        return row

    def _touch(self, row: RunRow) -> None:
        row.heard = self.now
        row.workflow["lastUpdated"] = stamp(self.now)

    # REST

    def all(self) -> list[RunRow]:
        """Give all rows as they are now, newest submission first."""
        for row in self._rows.values():
            self._watch(row)
        return sorted(
            self._rows.values(),
            key=lambda row: row.workflow["submit"] or row.workflow["dateCreated"] or "",
            reverse=True,
        )

    def get(self, key: str) -> RunRow:
        """Give one row as it is now."""
        if key not in self._rows:
            raise Refused(404, f"Unknown workflow: {key}")
        self._watch(self._rows[key])
        return self._rows[key]

    def cancel(self, key: str, *, force: bool) -> None:
        """Mark a run as cancelled; the server cannot reach a driver it did not start."""
        row = self.get(key)
        if row.is_final:
            raise Refused(400, f"Workflow {key} is {row.workflow['status']} already")
        if not force:
            raise Refused(400, "Workflow without compute environment: use force")
        ended = {"status": "CANCELLED", "complete": stamp(self.now), "success": False}
        row.workflow |= ended | {"errorMessage": "Workflow execution was cancelled"}

    def delete(self, key: str, *, force: bool) -> None:
        """Remove a row."""
        if not (self.get(key).is_final or force):
            raise Refused(400, f"Workflow {key} is still active")
        del self._rows[key]

    def put(self, row: RunRow) -> None:
        """Add or replace a row."""
        self._rows[row.key] = row

    def _watch(self, row: RunRow) -> None:
        if row.heard is None or row.is_final:
            return
        silent = self.now - row.heard
        if silent > SILENCE and row.workflow["status"] == "RUNNING":
            row.workflow |= {"status": "UNKNOWN", "duration": int(silent.total_seconds() * 1000)}
        if silent > FORGOTTEN and row.workflow["complete"] is None:
            row.workflow["complete"] = stamp(row.heard + FORGOTTEN)


def stamp(moment: datetime) -> str:
    """Write a time as the API does: seconds and Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def matching(rows: Iterable[RunRow], search: str) -> list[RunRow]:
    """Filter as the list's `search`: exact `key:value` words, the rest one partial text."""
    words = search.split()
    keyed = [word.partition(":")[::2] for word in words if _is_keyed(word)]
    text = " ".join(word for word in words if not _is_keyed(word))
    return [
        row
        for row in rows
        if all(_has(row.workflow, key, value) for key, value in keyed) and _says(row.workflow, text)
    ]


def _is_keyed(word: str) -> bool:
    key = word.partition(":")[0]
    return ":" in word and (key in _KEYWORDS or key in ("after", "before", "label"))


def _has(workflow: dict[str, Any], key: str, value: str) -> bool:
    day = (workflow["submit"] or "")[:10]
    if key == "after":
        return day > value
    if key == "before":
        return day < value
    if key == "label":
        return False
    return bool(str(workflow.get(_KEYWORDS[key])).casefold() == value.casefold())


def _says(workflow: dict[str, Any], text: str) -> bool:
    if not text:
        return True
    pattern = re.compile(fnmatch.translate(f"*{text}*"), re.IGNORECASE)
    fields = (workflow.get(name) for name in ("projectName", "runName", "sessionId"))
    return any(isinstance(value, str) and pattern.match(value) for value in fields)
