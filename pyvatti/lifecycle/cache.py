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
from pyvatti.jobs import read_job, read_pod, why_not_ours
from pyvatti.kube import JOBS, PODS, Home, Informer, KubeClient, WatchLimits
from pyvatti.models import Job, Manifest, Pod, Presence, Removal

log = structlog.get_logger(__name__)

Listener = Callable[[str], None]
POD_METADATA = (
    "name",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
    "labels",
    "ownerReferences",
)
OWN_ACCEPT = 5.0  # seconds for which the Secret we stored is taken to stand


def _merge(target: Manifest, patch: Manifest) -> Manifest:
    """Apply a JSON merge patch (RFC 7396)."""
    merged = {key: value for key, value in target.items() if patch.get(key, value) is not None}
    for key, value in patch.items():
        if isinstance(value, dict):
            below = merged.get(key)
            merged[key] = _merge(below if isinstance(below, dict) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def _slim_job(raw: Manifest) -> Manifest:
    """Drop what no reader needs: the pod's template is most of a Job's size."""
    return {**raw, "spec": {"suspend": (raw.get("spec") or {}).get("suspend", False)}}


def _slim_pod(raw: Manifest) -> Manifest:
    """Drop what no reader needs: a specification, and what controllers and nodes say at length."""
    status = raw.get("status") or {}
    kept = {key: status[key] for key in ("phase", "reason", "message") if key in status}
    for key in ("initContainerStatuses", "containerStatuses"):
        states = status.get(key) or ()
        kept[key] = [{"name": item["name"], "state": item.get("state")} for item in states]
    told = ("PodScheduled", "DisruptionTarget")
    kept["conditions"] = [item for item in status.get("conditions") or () if item["type"] in told]
    metadata = {key: raw["metadata"][key] for key in POD_METADATA if key in raw["metadata"]}
    found = metadata.get("labels") or {}
    metadata["labels"] = {labels.CONTROLLER_UID: found.get(labels.CONTROLLER_UID, "")}
    return {"metadata": metadata, "status": kept}


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
        self._home = home
        selector = labels.selector(home.instance, labels.DRIVER)
        self.job_informer = Informer(
            client,
            JOBS,
            selector=selector,
            on_change=self._job_changed,
            trim=_slim_job,
            limits=limits,
        )
        self.pod_informer = Informer(
            client,
            PODS,
            selector=selector,
            on_change=self._pod_changed,
            trim=_slim_pod,
            limits=limits,
        )
        self._jobs: dict[str, Job] = {}
        self._foreign: dict[str, Foreign] = {}  # by name
        self._base_of: dict[str, str] = {}  # job uid -> job name
        self._pods: dict[str, dict[str, Pod]] = {}  # job uid -> pod uid -> pod
        self._vanished: dict[str, Pod] = {}  # job uid -> last pod that went
        self._accepts: dict[str, float | None] = {}  # job uid -> end of an accept made here
        self._lost: dict[str, Manifest] = {}  # job uid -> a lost Job, as patched since
        self._is_unfinished: Callable[[Job], bool] | None = None
        self._clean: set[str] = set()  # uids of jobs whose data is proven deleted
        self._removals: dict[str, tuple[Removal, ...]] = {}  # job uid -> what was removed here
        self._listeners: list[Listener] = []

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
        if not (merged := _merge(raw, patch))["metadata"].get("finalizers"):
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
            job = read_job(new, self._known(old, new))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("job object not understood", error=type(error).__name__)
            return
        before = self._jobs.get(job.names.base)
        if before is not None and before.presence is not Presence.SEEN:
            self.drop_lost(before.uid)  # it came back, or its name is another Job's now
        self._jobs[job.names.base] = job
        self._base_of[job.uid] = job.names.base
        self._announce(job.names.base)

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
        """Give the Jobs that our selector finds and that are not ours."""
        return list(self._foreign.values())

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
        self._announce(base)

    def _pod_changed(self, old: Manifest | None, new: Manifest | None) -> None:
        raw = new or old
        if raw is None:
            return
        try:
            pod = read_pod(raw)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("pod object not understood", error=type(error).__name__)
            return
        mine = self._pods.setdefault(pod.job_uid, {})
        if new is not None:
            mine[pod.uid] = pod
        else:
            mine.pop(pod.uid, None)
            if pod.job_uid in self._base_of:
                self._vanished[pod.job_uid] = pod
        if not mine:
            del self._pods[pod.job_uid]
        if (base := self._base_of.get(pod.job_uid)) is not None:
            self._announce(base)

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
