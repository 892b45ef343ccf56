"""Soft delete: what must be off before anything is deleted, or all of it stays for days.

Decides about time and labels; the calls are Buckets'.
"""

import asyncio
from datetime import UTC, datetime

import structlog

from pyvatti import labels
from pyvatti.errors import AlreadyExists, Conflict, Denied, Rejected, Unavailable, Undeletable, trim
from pyvatti.models import Owner
from pyvatti.storage.buckets import Buckets, is_forbidden, is_missing
from pyvatti.storage.emptying import Emptier
from pyvatti.storage.ownership import find_ours
from pyvatti.storage.reading import Seen

log = structlog.get_logger(__name__)


class Keeping:
    """Switches soft delete off and waits until that is known everywhere.

    `settle` is in seconds. Google advises at least 30 s before the first deletion, because the
    policy is cached (cloud.google.com/storage/docs/disable-soft-delete).
    """

    def __init__(self, buckets: Buckets, emptier: Emptier, settle: float) -> None:
        self._buckets, self._emptier, self._settle = buckets, emptier, settle

    async def stop(self, seen: Seen, owner: Owner) -> Seen | None:
        """Give the bucket as it is once it keeps nothing of what is deleted; None if it went.

        Raises Undeletable where soft delete cannot be switched off: then nothing may be deleted.
        """
        if seen.soft_delete_seconds == 0:
            await asyncio.sleep(self._unsettled(seen))
            return seen
        await self._switch_off(seen, owner)
        await asyncio.sleep(self._settle)
        after = await find_ours(self._buckets, seen.name, owner)
        if after is not None and after.soft_delete_seconds != 0:
            raise Unavailable(f"bucket {seen.name}: soft delete is on again")
        return after

    def _unsettled(self, seen: Seen) -> float:
        """Give the seconds until a change made before this process looked is known everywhere."""
        if seen.changed_at is None:
            return 0.0
        passed = (datetime.now(UTC) - seen.changed_at).total_seconds()
        return min(max(self._settle - passed, 0.0), self._settle)

    async def _switch_off(self, seen: Seen, owner: Owner) -> None:
        marks = await self._marks(seen)
        try:
            await self._buckets.stop_keeping(seen, marks)
        except Denied as exc:
            if not is_forbidden(exc):
                raise
            raise _keeps(seen, exc) from exc
        except AlreadyExists:  # two changes at once (409)
            raise
        except Rejected as exc:
            if is_missing(exc):
                raise Unavailable(f"bucket {seen.name}: went meanwhile") from exc
            raise _keeps(seen, exc) from exc
        except Conflict as exc:  # a change in between, or an organisation's policy (412)
            now = await find_ours(self._buckets, seen.name, owner)
            if now is not None and now.metageneration == seen.metageneration:
                raise _keeps(seen, exc) from exc
            raise
        log.warning("soft delete was on and is switched off", bucket=seen.name)

    async def _marks(self, seen: Seen) -> dict[str, str]:
        """Give a label that says until when earlier deleted objects can be restored, if any.

        They can only be listed while soft delete is on, so the bucket itself must remember.
        """
        until = await self._emptier.kept_until(seen.name) if seen.soft_delete_seconds else None
        return {labels.BUCKET_KEPT_UNTIL: str(int(until.timestamp()) + 1)} if until else {}


def kept_until(seen: Seen, now: datetime) -> datetime | None:
    """Give until when something deleted earlier can be restored, None if nothing can."""
    text = seen.labels.get(labels.BUCKET_KEPT_UNTIL, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    until = datetime.fromtimestamp(int(text), UTC)
    return until if until > now else None


def require_nothing_kept(seen: Seen) -> None:
    """Raise Undeletable while something that was deleted earlier can be restored."""
    if until := kept_until(seen, datetime.now(UTC)):
        raise Undeletable(
            f"bucket {seen.name}: objects deleted earlier can be restored until "
            f"{until:%Y-%m-%dT%H:%M:%SZ}"
        )


def _keeps(seen: Seen, error: Exception) -> Undeletable:
    return Undeletable(
        trim(
            f"bucket {seen.name}: soft delete cannot be switched off, so nothing is deleted: "
            f"{error}"
        )
    )
