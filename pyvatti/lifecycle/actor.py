"""One live job: wakes on changes and at deadlines, observes, decides, acts; one pass at a time.

The rules are the policy's; how a step is done is `acting`'s. A failing step ends this job's pass
and is tried again with back-off; no other job notices.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from pyvatti import foreign
from pyvatti.errors import (
    NamespaceTerminating,
    PermanentError,
    PolicyDenied,
    PyvattiError,
    TransientError,
)
from pyvatti.guard import Guard
from pyvatti.lifecycle.acting import Hands
from pyvatti.lifecycle.denials import weigh
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.runs import RunFollower
from pyvatti.lifecycle.turns import NotYet
from pyvatti.lifecycle.withdrawing import is_stored
from pyvatti.models import Job, Remainder, State
from pyvatti.policy import (
    Action,
    Observed,
    Progress,
    decide,
    is_accepted,
    is_data_gone,
    is_stuck,
    proof,
    wake_times,
)
from pyvatti.policy.actions import Enter, LetGo, PrepareAttempt, Withdraw
from pyvatti.policy.limits import in_haste, state_limit
from pyvatti.policy.podwords import has_image_error, silence, silent_since, waits_on
from pyvatti.settings import Settings
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

FIRST_BACKOFF = 0.5  # seconds
LONGEST_BACKOFF = 60.0  # seconds
STUCK_BACKOFF = 900.0  # seconds, the longest where a person must act first
LEAST_PAUSE = 1.0  # seconds between two tries of a failing step, however many changes come
MOST_ROUNDS = 20  # rounds of observe-decide-act in one pass; more means it does not converge


class JobActor:
    """Brings one Job (name and uid) to its end, by as many passes as that takes."""

    def __init__(
        self,
        doors: Doors,
        hands: Hands,
        runs: RunFollower,
        job: Job,
        rested: Callable[[], None],
    ) -> None:
        self.base, self.uid = job.names.base, job.uid
        self._rested = rested
        self.progress = Progress()
        self.resting = False  # its preparation failed and waits for the next try
        self.leaving = False  # we let go of the Job: that it goes now is no loss
        self._doors, self._hands, self._runs = doors, hands, runs
        self._changed = asyncio.Event()
        self._failures = 0
        self._faults: set[str] = set()
        self._waits: set[str] = set()  # what was told that it waits for
        self.guard = Guard("actor")
        self._tried: Action | None = None  # the step of the last pass that was tried last

    def poke(self) -> None:
        """Make a pass soon: something about the job changed."""
        self._changed.set()

    async def live(self) -> None:
        """Make passes until the Job is gone."""
        about = foreign.about(partial(self._doors.cache.personal.of, self.uid))
        with structlog.contextvars.bound_contextvars(job=self.base), about:
            try:
                while self._doors.cache.job(self.base, self.uid) is not None:
                    self._changed.clear()
                    delay, least = await self._guarded_pass()
                    await self._rest(delay, least)
            finally:
                self._doors.limiter.cancel(self.base)
                self._doors.remains.forget(self.uid)

    async def _rest(self, delay: float | None, least: float) -> None:
        """Sleep until a change or for `delay` seconds; at least `least` seconds after a failure."""
        if least:
            await asyncio.sleep(least)
        # A bare timer: asyncio.timeout costs more than all of the policy.
        timer = None
        if delay is not None:
            timer = asyncio.get_running_loop().call_later(
                max(0.0, delay - least), self._changed.set
            )
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _guarded_pass(self) -> tuple[float | None, float]:
        try:
            delay = await self._pass()
        except NotYet as later:
            return later.seconds, 0.0
        except Exception as error:  # noqa: BLE001 - one bad job never stops the others
            self._doors.limiter.cancel(self.base)
            self._set_resting(resting=True)
            return self._back_off(error)
        self._failures = 0
        self.guard.forget(self.base)
        self._doors.limiter.cancel(self.base)  # at rest it waits for no turn: others are next
        self._set_resting(resting=False)
        return delay, 0.0

    def _set_resting(self, *, resting: bool) -> None:
        if self.resting is not resting:
            self.resting = resting
            self._rested()

    def _back_off(self, error: Exception) -> tuple[float, float]:
        self._failures += 1
        longest = STUCK_BACKOFF if self._call_person(error) else LONGEST_BACKOFF
        pause = min(FIRST_BACKOFF * 2.0 ** min(self._failures - 1, 20), longest)
        asked = error.retry_after if isinstance(error, TransientError) else None
        pause = max(pause * random.uniform(0.7, 1.3), min(asked or 0.0, LONGEST_BACKOFF))  # noqa: S311 - jitter
        if isinstance(error, PyvattiError):
            log.warning("pass failed", error=str(error), kind=type(error).__name__, again_in=pause)
        else:
            self.guard.note(self.base, error)
        return pause, min(LEAST_PAUSE, pause)

    def _call_person(self, error: Exception) -> bool:
        """Tell, once, that a step of the clean-up cannot succeed by itself; tell whether it is."""
        job, step = self._doors.cache.job(self.base, self.uid), self._tried
        if job is None or step is None or not job.state.is_terminal:
            return False
        if not is_stuck(error, self._failures):
            return False
        resource, reason = proof.touched_by(step, job.names), str(error) or type(error).__name__
        others = tuple(item for item in self.progress.stuck if item.resource != resource)
        if len(others) == len(self.progress.stuck):
            log.error("clean-up is stuck", resource=resource, error=reason)
            now, text = self._doors.clock(), f"{resource}: {reason}"
            self._doors.events.note(job, "CleanUpStuck", text, now, warning=True)
        stuck = (*others, Remainder(resource=resource, reason=reason))
        self._keep(replace(self.progress, stuck=stuck))
        return True

    def _keep(self, progress: Progress) -> None:
        """Take what is known now, and show what of it others ask for."""
        self.progress = progress
        self._doors.cache.note_removals(self.uid, progress.removals)
        self._doors.remains.note(self.uid, progress.remaining, progress.stuck)
        self._doors.remains.note_denial(self.uid, progress.denial)

    async def _pass(self) -> float | None:
        """Observe, decide, do the first step, and again until at rest; give the seconds to wait.

        One step at a time: what it changed, or what happened meanwhile, may change the rest.
        """
        metrics.passes.inc()
        before: Action | None = None
        for _ in range(MOST_ROUNDS):
            seen = await self._observe()
            if seen is None:
                return 0.0
            now = self._doors.clock()
            settings = self._settings()
            self._tell_wait(seen, now)
            steps = decide(seen, now, settings)
            if is_data_gone(seen):
                self._doors.cache.note_clean(self.uid)
            if not steps:
                return self._next_wake(seen, now)
            if steps[0] == before:
                raise TransientError(f"{type(before).__name__} changes nothing yet")
            if seen.going_since is None and await self._is_going(steps[0]):
                continue
            before = steps[0]
            await self._act(before, seen)
        raise TransientError("the pass does not come to rest")

    async def _is_going(self, step: Action) -> bool:
        """Look, before a job is called failed, whether it died with the whole namespace."""
        if not isinstance(step, Enter) or step.verdict.state is not State.FAILED:
            return False
        try:
            return await self._doors.home.look()
        except PyvattiError:  # no word is no proof
            return False

    async def _act(self, step: Action, seen: Observed) -> None:
        name, self._tried = type(step).__name__, step
        self.leaving = isinstance(step, LetGo)
        try:
            with metrics.steps.labels(name).time():
                done = await self._hands.do(step, seen, self.progress)
            freed = proof.touched_by(step, seen.job.names)
            stuck = tuple(item for item in done.stuck if item.resource != freed)
            self._keep(replace(done, stuck=stuck, denial=None))
        except NotYet as later:
            if later.done is not None:
                self._keep(later.done)
            raise
        except PyvattiError as error:
            metrics.step_errors.labels(name, type(error).__name__).inc()
            if not await self._learns_from(error, step, seen):
                raise

    async def _learns_from(self, error: PyvattiError, step: Action, seen: Observed) -> bool:
        """Take in what a failed step proves; tell whether the next round knows what to do."""
        if isinstance(error, NamespaceTerminating):
            return await self._doors.home.look()
        if isinstance(error, PolicyDenied):
            self._keep(weigh(error, step, seen, doors=self._doors, hands=self._hands))
            return self.progress.refusal is not seen.progress.refusal
        is_launch = seen.job.state is State.REQUESTED and not isinstance(step, Withdraw)
        is_start = is_launch or isinstance(step, PrepareAttempt)
        if not isinstance(error, PermanentError) or not is_start:
            return False
        name = type(step).__name__
        log.error("launch refused", step=name, error=str(error))
        self.progress = replace(self.progress, refusal=(f"{name}Refused", str(error)))
        return True

    async def _observe(self) -> Observed | None:
        doors = self._doors
        job = doors.cache.job(self.base, self.uid)
        if job is None:
            return None
        self._tell_faults(job)
        await doors.cache.know(job)
        has_slot = self._hands.has_slot(job)
        secret = job.state is State.REQUESTED and await self._look_for_secret(
            job, has_slot=has_slot
        )
        now = doors.clock()
        seen = Observed(
            job=job,
            pods=doors.cache.pods(self.uid),
            vanished=doors.cache.vanished(self.uid),
            run=self._runs.run_of(job.names.run_name),
            asked_at=self._runs.asked_at(job.names.run_name),
            secret_stands=secret,
            has_slot=has_slot,
            going_since=doors.home.going_since,
            progress=self.progress,
        )
        if self._note_times(seen, now):
            seen = replace(seen, progress=self.progress)
        limit = state_limit(job, doors.settings)
        if limit is not None and now >= limit[0] + limit[1]:
            pods = [pod.uid for pod in seen.pods]
            events = [await doors.kube.events_about(uid) for uid in (self.uid, *pods)]
            seen = replace(seen, events=tuple(event for part in events for event in part))
        return seen

    def _tell_faults(self, job: Job) -> None:
        """Say once what somebody wrote into the Job that nobody can read."""
        fresh = set(job.broken) - self._faults
        self._faults |= fresh
        if fresh:
            names = ", ".join(sorted(fresh))
            log.error("annotations not understood", names=names)
            metrics.unexpected.labels("actor", "Unreadable").inc()
            self._hands.warn(job, "AnnotationUnreadable", f"{names}: not readable and left out")

    def _tell_wait(self, seen: Observed, now: datetime) -> None:
        """Say once, of each kind, what keeps the driver pod of an unfinished job from running."""
        pod, job = seen.pod, seen.job
        if pod is None or job.state.is_terminal or job.deleting_since is not None:
            return
        since, waits = silent_since(pod, now), waits_on(pod, ())
        if since is not None:
            waits = ("silent node", silence(since))
        if waits is None or waits[0] in self._waits:
            return
        self._waits.add(waits[0])
        log.warning("job waits", on=waits[0], why=waits[1])
        self._hands.warn(job, "Waiting", f"waits for {waits[0]}: {waits[1]}")

    async def _look_for_secret(self, job: Job, *, has_slot: bool) -> bool:
        """Tell whether the driver's Secret stands, where the answer decides something."""
        if job.withdrawn:
            return False  # who withdraws looks itself
        if job.deleting_since is not None:
            return not self._knows_accept(job) and await self._prove_accept(job)
        if State.REQUESTED in job.transitions and not has_slot:
            return False
        own = self._doors.cache.knows_accept(job.uid)
        # Before a release it is looked up in any case: somebody may have deleted it since.
        is_asked = own is None or (own and self.progress.transfer_made)
        if is_asked:
            return await self._prove_accept(job)
        return bool(own) and self._note_accept()

    def _knows_accept(self, job: Job) -> bool:
        """Tell whether it is known without a look, however long ago it was seen."""
        here = self._doors.cache.was_accepted_here(job.uid) and self._note_accept()
        return here or job.is_marked or self.progress.accepted

    async def _prove_accept(self, job: Job) -> bool:
        return await is_stored(self._doors, job) and self._note_accept()

    def _note_accept(self) -> bool:
        if not self.progress.accepted:
            self.progress = replace(self.progress, accepted=True)
        return True

    def _note_times(self, seen: Observed, now: datetime) -> bool:
        """Take down what is new to us and since when; tell whether there was anything."""
        done, pod, job = self.progress, seen.pod, seen.job
        ended = job.ended is not None or (pod is not None and pod.main_end is not None)
        is_silent = any(silent_since(item, now) is not None for item in seen.pods)
        first = {
            "first_seen_at": done.first_seen_at or now,
            "end_seen_at": done.end_seen_at or (now if ended else None),
            "deletion_seen_at": done.deletion_seen_at or (now if job.deleting_since else None),
            "going_seen_at": done.going_seen_at or (now if seen.going_since else None),
            "image_error_since": (done.image_error_since or now) if has_image_error(pod) else None,
            "silent_seen_at": (done.silent_seen_at or now) if is_silent else None,
        }
        news: dict[str, Any] = {
            name: at for name, at in first.items() if at is not getattr(done, name)
        }
        if done.recorded and job.pending:  # somebody asked for an event to be told again
            news["recorded"] = False
        if news:
            self.progress = replace(done, **news)
        return bool(news)

    def _next_wake(self, seen: Observed, now: datetime) -> float | None:
        if self._waits_for_accept(seen):
            # nobody watches Secrets: the accept is completed within moments, or never
            age = (now - (seen.progress.first_seen_at or now)).total_seconds()
            return min(max(age, 0.2), 30.0)
        later = [moment for moment in wake_times(seen, self._settings()) if moment > now]
        return (min(later) - now).total_seconds() if later else None

    def _settings(self) -> Settings:
        settings = self._doors.settings
        return in_haste(settings) if self._doors.home.is_going else settings

    def _waits_for_accept(self, seen: Observed) -> bool:
        queued = seen.job.state is State.REQUESTED and seen.job.suspended
        return queued and not is_accepted(seen) and seen.job.deleting_since is None
