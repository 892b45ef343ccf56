"""Leader election on a Lease: whoever holds it may act, and stops before anybody else may.

What a leader does is not known here. The rules are those of client-go
(tools/leaderelection/leaderelection.go), with the work inside the watchdog, and one more: who holds
a Lease that goes with its namespace is its last holder, for nobody can make it again.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import structlog

from pyvatti.errors import AlreadyExists, Conflict, Denied, NamespaceTerminating, PyvattiError
from pyvatti.kube.answers import Malformed
from pyvatti.kube.backoff import between, spread
from pyvatti.kube.client import LEASES, KubeClient
from pyvatti.models import Manifest

log = structlog.get_logger(__name__)

JITTER = 1.2
RELEASE_ATTEMPTS = 5


class _LostError(Exception):
    """Another replica holds the Lease."""


class Elector:
    """One candidate for one Lease in the client's namespace.

    `identity` must be unique among all processes that ever ran: pod name and a random part.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        name: str,
        identity: str,
        lease_duration: timedelta,
        renew_deadline: timedelta,
        retry_period: timedelta,
    ) -> None:
        """Raise ValueError unless duration > deadline > 1.2 x period, and an identity is given."""
        if not lease_duration > renew_deadline > JITTER * retry_period or not identity:
            raise ValueError("lease duration > renew deadline > 1.2 x retry period must hold")
        self._client = client
        self._name = name
        self._identity = identity
        self._duration = lease_duration.total_seconds()
        self._deadline = renew_deadline.total_seconds()
        self._period = retry_period.total_seconds()
        self._lease: Manifest | None = None  # as last read or written: what a write is fenced by
        self._record: Manifest = {}  # the spec last seen
        self._changed_at = 0.0  # when it changed here, in monotonic seconds
        self._renewed_at = 0.0  # when our last successful write was sent, in monotonic seconds
        self._leading = False
        self._is_last = False  # we held it when it went with its namespace: nobody can follow
        self._is_refused = False  # the last attempt met its end with the namespace, or a 403
        self._claimed = False  # a write of ours may have made it ours
        self._log = log.bind(lease=name, identity=identity)

    @property
    def is_leader(self) -> bool:
        """Whether the work runs here; False only once it has ended."""
        return self._leading

    @property
    def may_act(self) -> bool:
        """Whether a call may begin now: leading, and no time has passed unnoticed.

        A process that was stopped and continued sees this before its watchdog has run. Asked
        from any thread.
        """
        return self._leading and (self._is_last or self._is_current())

    def _is_current(self) -> bool:
        return self._is_unrivalled and time.monotonic() < self._expiry()

    @property
    def _is_unrivalled(self) -> bool:
        return self.holder in ("", self._identity)

    @property
    def is_follower(self) -> bool:
        """Whether another replica is known to hold the Lease."""
        return self.holder not in ("", self._identity) and not self._is_expired()

    @property
    def is_shut_out(self) -> bool:
        """Whether, as far as the last attempt says, the work can never come to this replica.

        Means something only where the namespace goes: elsewhere permissions come back.
        """
        return self._is_refused and not self._leading

    @property
    def holder(self) -> str:
        """Identity of the holder last seen; empty without one."""
        return str(self._record.get("holderIdentity") or "")

    async def run(self, lead: Callable[[], Awaitable[None]]) -> NoReturn:
        """Contend for ever; run `lead()` while the Lease is ours, again each time it is regained.

        The work is cancelled and awaited before another replica may act. What it raises by
        itself ends the election. The Lease is given back when this ends.
        """
        try:
            while True:
                await self._acquire()
                await self._hold(lead)
                await self.release()
                await asyncio.sleep(self._period)
        finally:
            await self.release()

    async def release(self) -> None:
        """Give the Lease back, if it is ours and no work runs, so that nobody has to wait."""
        if self._leading or not self._claimed or self._is_last:
            return
        try:
            async with asyncio.timeout(self._attempt_seconds()):
                for _ in range(RELEASE_ATTEMPTS):
                    if await self._give_back():
                        break
        except (PyvattiError, TimeoutError) as error:
            self._log.warning("lease not released", error=str(error) or "timeout")
        self._lease = None
        self._claimed = False

    async def _give_back(self) -> bool:
        try:
            if self._lease is None:
                self._observe(await self._client.get(LEASES, self._name))
            if self.holder == self._identity:
                # An empty holder is accepted, a duration of 0 is not.
                await self._write(holder="", seconds=1)
                self._log.info("lease released")
            return True
        except Conflict:
            self._lease = None
            return False

    async def _acquire(self) -> None:
        while not await self._attempt():
            pause = spread(self._period, JITTER)
            left = self._changed_at + self._lasts() - time.monotonic()
            if 0 < left < pause:
                # Be there when it runs out, but not all replicas at once.
                pause = left + between(0.01, 0.1) * self._period
            await asyncio.sleep(pause)

    async def _hold(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Run the work inside the watchdog, beside the renewals."""
        self._leading = True
        self._log.info("leadership gained")
        watchdog = asyncio.timeout(self._expiry() - time.monotonic())
        try:
            async with watchdog, asyncio.TaskGroup() as group:
                renewals = group.create_task(self._renew(watchdog))
                await lead()
                renewals.cancel()
        except* _LostError:
            self._log.warning("leadership lost", holder=self.holder)
        except* TimeoutError:
            if not watchdog.expired():
                raise
            self._lease = None
            self._log.warning("leadership lost", reason="no renewal within the deadline")
        finally:
            self._leading = False

    async def _renew(self, watchdog: asyncio.Timeout) -> NoReturn:
        while True:
            await asyncio.sleep(self._period)
            if await self._attempt():
                if self._is_last:  # nothing is left to renew, and nobody to stop for
                    if not watchdog.expired():
                        watchdog.reschedule(None)
                    await asyncio.Event().wait()
                # While the work is being stopped the Lease is still kept, but no time is won.
                if not watchdog.expired():
                    left = self._expiry() - time.monotonic()
                    watchdog.reschedule(asyncio.get_running_loop().time() + left)
            elif not self._is_unrivalled:
                raise _LostError

    async def _attempt(self) -> bool:
        """Try once to acquire or renew, within its own time limit. Never raises our errors."""
        try:
            async with asyncio.timeout(self._attempt_seconds()):
                self._is_refused = False
                return await self._acquire_or_renew()
        except (PyvattiError, TimeoutError) as error:
            self._is_refused = isinstance(error, Denied | NamespaceTerminating)
            # The answer may be lost and the write done: the next attempt reads first.
            self._lease = None
            self._log.warning("lease attempt failed", error=str(error) or "timeout")
            return False

    async def _acquire_or_renew(self) -> bool:
        if self._leading and self._lease is not None:
            try:
                return await self._write(holder=self._identity)
            except Conflict:
                self._lease = None
        holding = self._leading and self._is_current()
        lease = await self._client.get(LEASES, self._name)
        self._observe(lease)
        if lease is None:
            return await (self._create_again() if holding else self._create_first())
        if not self._is_unrivalled and not self._is_expired():
            return False
        try:
            return await self._write(holder=self._identity)
        except Conflict:
            self._lease = None
            return False

    async def _create_again(self) -> bool:
        """Make the Lease that went while it was ours.

        Where its namespace goes this is refused to everybody, for ever: then we stay its last
        holder, with nothing to renew.
        """
        try:
            return await self._create()
        except NamespaceTerminating:
            if not (self._leading and self._is_current()):
                raise  # the answer took so long that another may have held it in between
        self._is_last = True
        self._log.warning("lease went with its namespace: nobody can take it, this replica goes on")
        return True

    async def _create_first(self) -> bool:
        """Make a Lease that is missing, unless it went with its namespace.

        The look comes after the Lease was seen missing. An API server whose cache is old may still
        create what the namespace's deletion removed, beside its last holder.
        """
        try:
            namespace = await self._client.own_namespace()
        except PyvattiError as error:  # no word is no proof
            self._log.debug("own namespace not read", error=str(error))
            namespace = None
        if namespace is not None and namespace["metadata"].get("deletionTimestamp"):
            self._is_refused = True
            self._log.debug("lease went with its namespace: its last holder alone may act")
            return False
        return await self._create()

    async def _create(self) -> bool:
        self._claimed = True
        now = _microtime()
        body = self._body(
            {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._whole_duration(),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            }
        )
        sent_at = time.monotonic()
        try:
            self._observe(await self._client.create(LEASES, body))
        except AlreadyExists:
            return False
        self._renewed_at = sent_at
        return True

    async def _write(self, *, holder: str, seconds: int | None = None) -> bool:
        """PUT the Lease, fenced by the version and uid last read. Raises Conflict."""
        self._claimed = True
        lease, spec, now = self._lease or {}, self._record, _microtime()
        is_new = holder != self.holder
        transitions = int(spec.get("leaseTransitions") or 0)
        body = self._body(
            {
                "holderIdentity": holder,
                "leaseDurationSeconds": seconds or self._whole_duration(),
                "acquireTime": now if is_new else spec.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": transitions + 1 if is_new and holder else transitions,
            }
        )
        # With resourceVersion and uid: without both, a Lease deleted meanwhile would be made anew
        # beside another leader's.
        body["metadata"] = lease["metadata"]
        sent_at = time.monotonic()
        self._observe(await self._client.replace(LEASES, self._name, body))
        self._renewed_at = sent_at
        return True

    def _observe(self, lease: Manifest | None) -> None:
        """Remember a Lease and, if its record differs from the last one, when that was seen.

        The clocks of other machines are never compared with ours. Raises Malformed.
        """
        if lease is not None and not _is_fenced(lease):
            raise Malformed("a Lease without resourceVersion and uid")
        self._lease = lease
        spec = (lease or {}).get("spec")
        record = spec if isinstance(spec, dict) else {}
        if record != self._record:
            self._record = record
            self._changed_at = time.monotonic()

    def _lasts(self) -> float:
        """Seconds the record seen lives unchanged, by its own word."""
        seconds = self._record.get("leaseDurationSeconds")
        return float(seconds) if isinstance(seconds, int) and seconds > 0 else self._duration

    def _is_expired(self) -> bool:
        return time.monotonic() >= self._changed_at + self._lasts()

    def _expiry(self) -> float:
        return self._renewed_at + self._deadline

    def _attempt_seconds(self) -> float:
        """One hung attempt must leave time for another before the deadline."""
        return max(self._deadline / 3, min(self._period, self._deadline / 2))

    def _whole_duration(self) -> int:
        return max(1, math.ceil(self._duration))

    def _body(self, spec: Manifest) -> Manifest:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._client.namespace},
            "spec": spec,
        }


def _is_fenced(lease: Manifest) -> bool:
    """Whether it carries what a write of it is fenced by."""
    metadata = lease.get("metadata")
    return isinstance(metadata, dict) and {"resourceVersion", "uid"} <= set(metadata)


def _microtime() -> str:
    """Give now as MicroTime: exactly six digits and a zone, or the server answers 400."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
