"""Live jobs and their pods as last seen, each parsed once per change. No calls of its own.

Fed by two informers; memory grows with live jobs alone.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NoReturn

import structlog

from pyvatti import labels
from pyvatti.errors import Unavailable
from pyvatti.guard import Guard
from pyvatti.jobs import names_for, read_job, read_pod, why_not_ours, why_pod_not_of
from pyvatti.kube import JOBS, PODS, Home, Informer, KubeClient, WatchLimits
from pyvatti.lifecycle.personal import Personal
from pyvatti.lifecycle.trimming import merge, slim_job, slim_pod
from pyvatti.models import Job, Manifest, Pod, Presence, Removal

log = structlog.get_logger(__name__)

Listener = Callable[[str], None]
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
OWN_ACCEPT = 5.0  # seconds for which the Secret we stored is taken to stand


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A Job that our selector finds and that is not this installation's, and why it is not."""

    name: str
    uid: str
    why: str


class Cache:
    """The informers of Jobs and Pods and what they say, as values.

    Listeners are called with a job's name (lower-case id) on every change of it or its pods.
    """

    def __init__(self, client: KubeClient, home: Home, limits: WatchLimits | None = None) -> None:
        self._client, self._home = client, home
        self.personal = Personal()
        selector = labels.selector(home.instance, labels.DRIVER)
        self.job_informer = Informer(
            client,
            JOBS,
            selector=selector,
            on_change=self._job_changed,
            trim=slim_job,
            limits=limits,
        )
        self.pod_informer = Informer(
            client,
            PODS,
            selector=selector,
            on_change=self._pod_changed,
            trim=slim_pod,
            limits=limits,
        )
        self._jobs: dict[str, Job] = {}
        self._foreign: dict[str, Foreign] = {}  # by name
        self._of_before: list[Foreign] = []  # Jobs of older versions
        self._base_of: dict[str, str] = {}  # job uid -> job name
        self._pods: dict[str, dict[str, Pod]] = {}  # job uid -> pod uid -> pod
        self._job_of: dict[str, str] = {}  # pod uid -> uid of the job it was first believed for
        self._vanished: dict[str, Pod] = {}  # job uid -> last pod that went
        self._accepts: dict[str, float | None] = {}  # job uid -> end of an accept made here
        self._lost: dict[str, Manifest] = {}  # job uid -> a lost Job, as patched since
        self._is_unfinished: Callable[[Job], bool] | None = None
        self._clean: set[str] = set()  # uids of jobs whose data is proven deleted
        self._removals: dict[str, tuple[Removal, ...]] = {}  # job uid -> what was removed here
        self._listeners: list[Listener] = []
        self._guard = Guard("cache")

    async def run_jobs(self) -> NoReturn:
        """Follow the Jobs until cancelled, once it is known which are ours."""
        await self._home.wait()
        await self.job_informer.run()

    async def run_pods(self) -> NoReturn:
        """Follow the Pods until cancelled."""
        await self._home.wait()
        await self.pod_informer.run()

    def listen(self, listener: Listener) -> None:
        """Call the listener on every later change."""
        self._listeners.append(listener)

    def ignore(self, listener: Listener) -> None:
        """Stop calling the listener."""
        self._listeners.remove(listener)

    def keep_lost(self, is_unfinished: Callable[[Job], bool] | None) -> None:
        """Keep Jobs that leave our sight while `is_unfinished`; with None, drop those there are.

        Somebody stripped our finalizer from a dying Job, or edited the labels we find it by. What
        it said is then in this memory alone, and must outlive it until its end is told.
        """
        self._is_unfinished = is_unfinished
        if is_unfinished is None:
            for uid in tuple(self._lost):
                self.drop_lost(uid)

    def patch_lost(self, uid: str, patch: Manifest) -> None:
        """Patch a Job that is gone as the API server would have: without finalizers it ends."""
        raw = self._lost.get(uid)
        if raw is None:
            return
        if not (merged := merge(raw, patch))["metadata"].get("finalizers"):
            self.drop_lost(uid)
            return
        self._keep(merged, Presence.GONE)

    def _keep(self, raw: Manifest, presence: Presence) -> None:
        job = replace(read_job(raw), presence=presence)
        self._lost[job.uid] = raw
        self._jobs[job.names.base] = job
        self._announce(job.names.base)

    def drop_lost(self, uid: str) -> None:
        """Forget a lost Job."""
        raw = self._lost.pop(uid, None)
        if raw is not None:
            self._remove(raw["metadata"]["name"], uid)

    @property
    def is_synced(self) -> bool:
        """Whether the first lists of Jobs and Pods were read completely."""
        return self.job_informer.synced and self.pod_informer.synced

    async def know(self, job: Job) -> None:
        """Learn what must not be told of a released job, once. No failure of it is an error."""
        if await self.personal.read(self._client, job):
            self._read_pods_again(job.uid)

    def note_request(self, job: Job, secret: Manifest | None) -> None:
        """Learn the same from the driver's Secret, whoever read it."""
        if self.personal.learn(job.uid, secret):
            self._read_pods_again(job.uid)

    def _read_pods_again(self, uid: str) -> None:
        for pod in self.pods(uid):
            raw = self.pod_informer.get(pod.name)
            if raw is not None and raw["metadata"]["uid"] == pod.uid:
                self._pod_changed(raw, raw)

    async def wait_synced(self) -> None:
        """Wait until both informers have read their first list."""
        await self.job_informer.wait_synced()
        await self.pod_informer.wait_synced()

    def is_fresh(self, monotonic: float) -> bool:
        """Tell whether both informers heard from the API server lately."""
        return self.job_informer.is_fresh(monotonic) and self.pod_informer.is_fresh(monotonic)

    def silences(self, monotonic: float) -> dict[str, float]:
        """Give by kind the seconds since the API server last spoke; infinite before it did."""
        heard = {"jobs": self.job_informer.last_heard, "pods": self.pod_informer.last_heard}
        return {kind: monotonic - moment for kind, moment in heard.items()}

    def jobs(self) -> list[Job]:
        """Give all live jobs."""
        return list(self._jobs.values())

    def job(self, base: str, uid: str | None = None) -> Job | None:
        """Give a live job by its name; with a uid, only that very Job."""
        job = self._jobs.get(base)
        return job if job is None or uid is None or job.uid == uid else None

    def pods(self, uid: str) -> tuple[Pod, ...]:
        """Give the pods of one Job."""
        return tuple(self._pods.get(uid, {}).values())

    def vanished(self, uid: str) -> Pod | None:
        """Give how the last pod of a Job was when it went away, if one did since start-up."""
        return self._vanished.get(uid)

    def note_job(self, raw: Manifest) -> Job:
        """Make the answer of our own write visible at once."""
        self.job_informer.note_write(raw)
        job = read_job(raw)
        if job.uid in self._lost:  # the informer does not take back what left its sight
            self._keep(raw, Presence.UNSEEN)
        return job

    @contextlib.contextmanager
    def accepting(self, job: Job) -> Iterator[None]:
        """Note that an accept is being completed here: until then nobody looks for its Secret."""
        self._accepts[job.uid] = None
        try:
            yield
        except BaseException:
            self._accepts.pop(job.uid, None)  # the Job may be gone already
            raise
        self._accepts[job.uid] = time.monotonic()
        self._announce(job.names.base)

    def knows_accept(self, uid: str) -> bool | None:
        """Tell whether an accept made here is complete; None for one made long ago or elsewhere."""
        ended = self._accepts.get(uid, -OWN_ACCEPT)
        if ended is None:
            return False
        return True if time.monotonic() - ended < OWN_ACCEPT else None

    def was_accepted_here(self, uid: str) -> bool:
        """Tell whether an accept of this Job was completed here, however long ago."""
        return self._accepts.get(uid) is not None

    def _job_changed(self, old: Manifest | None, new: Manifest | None) -> None:
        if new is None:
            if old is not None:
                self._forget(old)
            return
        try:
            if self._set_aside(new):
                return
            job = read_job(
                new, self._known(old, new), self.personal.cleaner(new["metadata"]["uid"])
            )
            job = self._with_edits(job, new)
        except UNREADABLE as error:
            self._guard.note(_name_of(new), error)
            return
        before = self._jobs.get(job.names.base)
        if before is not None and before.presence is not Presence.SEEN:
            self.drop_lost(before.uid)  # it came back, or its name is another Job's now
        self._jobs[job.names.base] = job
        self._base_of[job.uid] = job.names.base
        self._announce(job.names.base)

    def _with_edits(self, job: Job, raw: Manifest) -> Job:
        """Name the labels of a Job of ours that do not say any more whose it is."""
        wanted = labels.identity(self._home.installation, labels.DRIVER)
        wanted[labels.JOB_ID] = job.names.base
        found = raw["metadata"].get("labels") or {}
        odd = [key for key, value in wanted.items() if found.get(key) != value]
        return replace(job, edited=(*job.edited, *odd)) if odd else job

    def _set_aside(self, new: Manifest) -> bool:
        """Leave a Job alone that is not ours; one that we know was edited and will be repaired."""
        name, uid = new["metadata"]["name"], new["metadata"]["uid"]
        if self.job(name, uid) is not None:
            return False
        why = why_not_ours(new, self._home.installation)
        before = self._foreign.pop(name, None)
        if not why:
            return False
        self._foreign[name] = Foreign(name=name, uid=uid, why=why)
        if self._foreign[name] != before:
            log.warning("job is not ours and is left alone", job=name, uid=uid, why=why)
            self._announce(name)
        return True

    def foreign(self) -> list[Foreign]:
        """Give the Jobs that our selector finds and that are not ours, and those of before."""
        return [*self._foreign.values(), *self._of_before]

    def note_of_before(self, found: list[Foreign]) -> None:
        """Note the Jobs that an older version made and that nobody follows any more."""
        self._of_before = found

    def _known(self, old: Manifest | None, new: Manifest) -> Job | None:
        """Give what was read of a Job before, if its annotations are still the same."""
        if old is None:
            return None
        before, after = old["metadata"], new["metadata"]
        if before["uid"] != after["uid"] or before.get("annotations") != after.get("annotations"):
            return None
        known = self.job(after["name"], after["uid"])
        is_its_reading = known is not None and known.resource_version == before["resourceVersion"]
        return known if is_its_reading else None

    def _forget(self, old: Manifest) -> None:
        base, uid = old["metadata"]["name"], old["metadata"]["uid"]
        if base in self._foreign and self._foreign[base].uid == uid:
            del self._foreign[base]
        job = self.job(base, uid)
        if job is not None and self._is_unfinished is not None and self._is_unfinished(job):
            log.warning("job left our sight", job=base)
            self._keep(old, Presence.UNSEEN)
            return
        self._remove(base, uid)

    def _remove(self, base: str, uid: str) -> None:
        if self.job(base, uid) is not None:
            del self._jobs[base]
        self._base_of.pop(uid, None)
        self._vanished.pop(uid, None)
        self._accepts.pop(uid, None)
        self._clean.discard(uid)
        self._removals.pop(uid, None)
        self.personal.forget(uid)
        self._announce(base)

    def _pod_changed(self, old: Manifest | None, new: Manifest | None) -> None:
        raw = new or old
        if raw is None:
            return
        try:
            known = self._job_of.get(raw["metadata"]["uid"])  # its owner may have been edited since
            job_uid = known or labels.owner_uid(raw)
            words = self.personal.pod_cleaner(job_uid), self.personal.cleaner(job_uid)
            pod = replace(read_pod(raw, *words), job_uid=job_uid)
        except UNREADABLE as error:
            self._guard.note(_name_of(raw), error)
            return
        mine = self._pods.get(pod.job_uid, {})
        if pod.uid not in mine and (new is None or self._is_foreign_pod(new, pod)):
            return  # what it says of a job is not believed
        if new is not None:
            self._pods[pod.job_uid] = {**mine, pod.uid: pod}
            self._job_of[pod.uid] = pod.job_uid
        else:
            self._forget_pod(pod)
        if (base := self._base_of.get(pod.job_uid)) is not None:
            self._announce(base)

    def _forget_pod(self, pod: Pod) -> None:
        mine = self._pods[pod.job_uid]
        del mine[pod.uid], self._job_of[pod.uid]
        if not mine:
            del self._pods[pod.job_uid]
        if pod.job_uid in self._base_of:
            self._vanished[pod.job_uid] = pod

    def _is_foreign_pod(self, raw: Manifest, pod: Pod) -> bool:
        """Tell whether a Pod only looks like one of a Job: it was copied, or is somebody else's."""
        installation = self._home.installation
        base = (raw["metadata"].get("labels") or {}).get(labels.JOB_ID, "")
        names = names_for(base, installation.namespace, pod.job_uid)
        if why := why_pod_not_of(raw, names, installation):
            log.debug("pod is not ours and is not believed", pod=pod.name, why=why)
        return bool(why)

    def _announce(self, base: str) -> None:
        for listener in tuple(self._listeners):
            listener(base)

    def require_synced(self) -> None:
        """Raise Unavailable before the first lists were read: an empty cache proves nothing."""
        if not self.is_synced:
            raise Unavailable("the service has not read the cluster's state yet", retry_after=2)

    def note_removals(self, uid: str, removals: tuple[Removal, ...]) -> None:
        """Note what this replica removed of a live job so far."""
        if uid in self._base_of:
            self._removals[uid] = removals

    def removals(self, uid: str) -> tuple[Removal, ...]:
        """Give what this replica removed of a live job; only the acting one knows."""
        return self._removals.get(uid, ())

    def note_clean(self, uid: str) -> None:
        """Note that a job's data is proven deleted; it may go on waiting for the backend."""
        if uid in self._base_of:
            self._clean.add(uid)

    def oldest_deletion(self) -> datetime | None:
        """Give when the longest clean-up began whose data is not known to be deleted."""
        ended = [
            job.transitions.get(job.state, job.accepted_at)
            for job in self._jobs.values()
            if job.state.is_terminal and job.uid not in self._clean
        ]
        return min(ended, default=None)


def _name_of(raw: Manifest) -> str:
    return str((raw.get("metadata") or {}).get("name"))
