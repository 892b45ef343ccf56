"""The stand-ins' own log of several replicas: who sent which write when, and who led then.

Only the rule that one acts at a time; what comes of the writes is judged by `rules`.
"""

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from time import monotonic
from typing import Any

from chaos.cables import Line, Lines
from chaos.calls import Answer, Call
from chaos.rules import REFUSED
from chaos.witness import Witness
from pyvatti import labels

LEASE_SECONDS = 4
MERELY_MARKED = {"annotations", "finalizers", "resourceVersion", "uid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One write of one replica that is the leader's alone. Times are monotonic seconds.

    `sent_at`: when it left the replica; `at`: when it was dealt with. `is_fenced`: it names the
    version or uid it is meant for, or makes something whose name can be taken but once.
    """

    sent_at: float
    at: float
    who: str
    what: str
    status: int
    is_fenced: bool


class Ledger:
    """Writes down acts and holders. `names` gives the replica for an identity on the Lease."""

    def __init__(self, lines: Lines, witness: Witness) -> None:
        self.acts: list[Act] = []
        self.holders: list[tuple[float, str]] = []  # since when who; "" is nobody
        self.renewals: list[tuple[float, str]] = []
        self.names: dict[str, str] = {}
        self._lines, self._witness = lines, witness
        self._ended: set[tuple[str, str]] = set()  # (replica, Job) withdrawn or cancelled by it

    def cancelled(self, who: str, base: str) -> None:
        """Note that a user cancels a job by a replica, which then writes to its Job."""
        self._ended.add((who, base))

    def answered(self, call: Call, answer: Answer) -> None:
        """Note a call that a stand-in acted upon."""
        line, now = self._lines.get(call.port, Line("?")), monotonic()
        if call.method == "GET":
            return
        if "/leases" in call.path:
            if answer.status < REFUSED:
                self._lease_written(line.owner, json.loads(answer.request), now)
        elif not call.is_background and not self._is_anybodys(line.owner, call, answer.request):
            self.acts.append(
                Act(
                    sent_at=line.sent_at,
                    at=now,
                    who=line.owner,
                    what=f"{call.neighbour} {call.method} {call.path}",
                    status=answer.status,
                    is_fenced=_is_fenced(call, answer.request),
                )
            )

    def misdeeds(self) -> list[str]:
        """Name every write that was not the sender's to make."""
        return [f"{act.who}: {act.what} {wrong}" for act in self.acts if (wrong := self._why(act))]

    def _why(self, act: Act) -> str:
        """Say what is wrong with an act; empty if nothing is.

        What was sent in time may arrive late, out of a stopped network; nobody can call it back.
        """
        holder = self._latest(self.holders, act.sent_at)[1]
        if holder != act.who:
            return f"was sent while {holder or 'nobody'} held the Lease"
        mine = [renewal for renewal in self.renewals if renewal[1] == act.who]
        age = act.sent_at - self._latest(mine, act.sent_at)[0]
        if age > LEASE_SECONDS:
            return f"was sent {age:.1f} s after the last renewal"
        if not act.is_fenced:
            return "names neither version nor uid of what it changes"
        return ""

    @staticmethod
    def _latest(history: list[tuple[float, str]], at: float) -> tuple[float, str]:
        index = bisect_right([since for since, _ in history], at)
        return history[index - 1] if index else (0.0, "")

    def _lease_written(self, who: str, lease: dict[str, Any], now: float) -> None:
        identity = lease["spec"].get("holderIdentity", "")
        holder = who if identity else ""
        if identity:
            self.names[identity] = who
            self.renewals.append((now, who))
        if not self.holders or self.holders[-1][1] != holder:
            self.holders.append((now, holder))
            self._witness.epoch += 1

    def _is_anybodys(self, who: str, call: Call, body: bytes) -> bool:
        """Tell whether a write is no leader's alone: every replica accepts, cancels, tells Events.

        Accepting makes a Job and its first Secret, or takes back what it could not make.
        """
        job = call.path.partition("?")[0].rpartition("/jobs/")[2]
        if re.search(r"/(events|jobs)\?", call.path) and call.method == "POST":
            return True
        if call.method == "POST" and "/secrets" in call.path:
            return not str(json.loads(body)["metadata"]["name"]).endswith("-transfer")
        if call.method == "PATCH" and _marks_only(labels.WITHDRAWN, json.loads(body)):
            self._ended.add((who, job))
            return True
        if (who, job) not in self._ended:
            return False
        return call.method == "DELETE" or _marks_only(labels.TRANSITIONS, json.loads(body))


def _marks_only(annotation: str, patch: dict[str, Any]) -> bool:
    """Tell whether a patch of a Job sets or takes back this mark and does nothing else."""
    metadata = patch.get("metadata", {})
    only = set(metadata.get("annotations") or ()) == {annotation}
    return only and set(patch) == {"metadata"} and set(metadata) <= MERELY_MARKED


def _is_fenced(call: Call, body: bytes) -> bool:
    if call.neighbour != "kubernetes" or call.method == "POST":
        return True
    said = json.loads(body or b"{}")
    marks = {**said.get("metadata", {}), **said.get("preconditions", {})}
    return bool({"resourceVersion", "uid"} & set(marks))
