"""What was not deleted, as far as this process knows: of live jobs, and of finished ones.

Memory alone; records and Jobs hold the truth. Only the acting replica knows of live jobs.
"""

from collections.abc import Collection
from datetime import datetime

from pyvatti.models import Remainder, Waiting


class Remains:
    """By Job uid: what a clean-up left or failed at; since when data of a finished job stays.

    Also what a policy of the cluster says against a live job's next step.
    """

    def __init__(self) -> None:
        self._remaining: dict[str, tuple[Remainder, ...]] = {}
        self._stuck: dict[str, tuple[Remainder, ...]] = {}
        self._denials: dict[str, Waiting] = {}
        self._finished: dict[str, datetime] = {}

    def note(
        self, uid: str, remaining: tuple[Remainder, ...], stuck: tuple[Remainder, ...]
    ) -> None:
        """Note how the clean-up of a live job stands."""
        self._remaining[uid], self._stuck[uid] = remaining, stuck

    def remaining(self, uid: str) -> tuple[Remainder, ...]:
        """Give what of a live job is not ours any more and stays."""
        return self._remaining.get(uid, ())

    def stuck(self, uid: str) -> tuple[Remainder, ...]:
        """Give what the clean-up of a live job fails at."""
        return self._stuck.get(uid, ())

    def note_denial(self, uid: str, denial: Waiting | None) -> None:
        """Note what a policy of the cluster says against a live job, or that it says nothing."""
        if denial is None:
            self._denials.pop(uid, None)
        else:
            self._denials[uid] = denial

    def denial(self, uid: str) -> Waiting | None:
        """Give what a policy of the cluster says against a live job."""
        return self._denials.get(uid)

    def forget(self, uid: str) -> None:
        """Forget a live job."""
        self._denials.pop(uid, None)
        self._remaining.pop(uid, None)
        self._stuck.pop(uid, None)

    def note_finished(self, uid: str, since: datetime) -> None:
        """Note that a finished job's data was not seen to be gone."""
        self._finished[uid] = since

    def keep_finished(self, uids: Collection[str]) -> None:
        """Forget all other finished jobs: their data is gone, or their record is."""
        self._finished = {uid: at for uid, at in self._finished.items() if uid in uids}

    def drop_finished(self, uid: str) -> None:
        """Forget a finished job: its data is gone."""
        self._finished.pop(uid, None)

    def oldest(self) -> datetime | None:
        """Give the end of the finished job whose data has stayed longest."""
        return min(self._finished.values(), default=None)

    def count(self) -> int:
        """Count the finished jobs whose data was not seen to be gone."""
        return len(self._finished)
