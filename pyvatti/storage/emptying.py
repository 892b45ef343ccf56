"""Deletes every object version of a bucket, in batches, page by page, and counts them.

Deletes no bucket and checks no owner: its caller has done that.
"""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from google.api_core.exceptions import NotFound

from pyvatti.errors import Denied, PyvattiError, TransientError, Unavailable
from pyvatti.storage.calls import Calls, is_definite, jittered, of_status

PAGE = 1000  # objects in one list answer, at most what the server gives
BATCH = 100  # calls in one batch, at most what the server takes
ROUNDS = 5  # full listings before a bucket that is never empty is left for later


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One generation of one object; `size` in bytes."""

    name: str
    generation: int
    size: int


@dataclass(slots=True)
class Tally:
    """What was deleted so far; `size` in bytes. Lost answers stay unsure until a listing speaks."""

    objects: int = 0
    size: int = 0
    unsure: set[Version] = field(default_factory=set)

    def gone(self, version: Version) -> None:
        """Count one version that this process deleted."""
        self.unsure.discard(version)
        self.objects += 1
        self.size += version.size

    def settle(self) -> None:
        """Count the unsure ones: they were asked to go and are not listed any more."""
        for version in list(self.unsure):
            self.gone(version)


class Emptier:
    """Empties buckets."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._timeout = calls.timeout

    async def empty(self, bucket: str, tally: Tally, prefix: str = "") -> None:
        """Delete what begins with `prefix` until a listing of all versions is empty; count it.

        Raises Denied if an object may not be deleted (hold, retention, permission), after all
        others are gone; Unavailable if the server fails or somebody keeps writing.
        """
        for _ in range(ROUNDS):
            if not await self._pass(bucket, tally, prefix):
                tally.settle()
                return
        raise Unavailable(f"bucket {bucket}: somebody keeps writing into it")

    async def _pass(self, bucket: str, tally: Tally, prefix: str) -> int:
        """Delete all that one listing shows and give its length."""
        found = 0
        failure: PyvattiError | None = None
        token: str | None = ""
        while token is not None:
            list_page = partial(
                _list_page, bucket=bucket, prefix=prefix, token=token, timeout=self._timeout
            )
            versions, token = await self._calls.patiently(f"list {bucket}", list_page)
            found += len(versions)
            failure = await self._delete(bucket, versions, tally) or failure
            if isinstance(failure, TransientError) and not isinstance(failure, Denied):
                raise failure
        if failure:
            raise failure
        return found

    async def _delete(
        self, bucket: str, versions: list[Version], tally: Tally
    ) -> PyvattiError | None:
        """Delete one page in batches side by side; give one of the failures."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    self._delete_batch(bucket, versions[start : start + BATCH], tally)
                )
                for start in range(0, len(versions), BATCH)
            ]
        failures = [failure for task in tasks if (failure := task.result())]
        # A failing server matters more than an object under a hold.
        return min(failures, key=lambda failure: isinstance(failure, Denied), default=None)

    async def _delete_batch(
        self, bucket: str, versions: list[Version], tally: Tally
    ) -> PyvattiError | None:
        """Delete up to 100 versions, failed ones again; give what failed in the end."""
        left = versions
        failure: PyvattiError | None = None
        for pause in (*self._calls.pauses, 0.0):
            try:
                delete = partial(_delete_all, bucket=bucket, versions=left, timeout=self._timeout)
                answers = await self._calls.run(f"delete objects of {bucket}", delete)
            except PyvattiError as exc:
                failure = exc
                tally.unsure.update(left)
            else:
                left, failure = _settle(left, answers, tally)
            if not left or not isinstance(failure, Unavailable) or isinstance(failure, Denied):
                break
            await asyncio.sleep(jittered(pause))
        return failure


def _settle(
    versions: list[Version], answers: list[tuple[int, str]], tally: Tally
) -> tuple[list[Version], PyvattiError | None]:
    """Count what is gone; give what to try again, and the failure that stands if nothing helps."""
    left: list[Version] = []
    failure: PyvattiError | None = None
    for version, (status, text) in zip(versions, answers, strict=True):
        if status == 404 and version not in tally.unsure:
            continue  # somebody else was faster
        if 200 <= status < 300 or status == 404:
            tally.gone(version)
            continue
        error = of_status(status, f"object {version.name} not deleted: {status} {text}")
        if isinstance(error, Unavailable) and not isinstance(error, Denied):
            left.append(version)
            tally.unsure.add(version)
            failure = error
        else:
            failure = failure or error
    return left, failure


def _list_page(
    client: Any, *, bucket: str, prefix: str, token: str, timeout: tuple[float, float]
) -> tuple[list[Version], str | None]:
    """List one page of all versions and the token of the next; a missing bucket is empty."""
    iterator = client.list_blobs(
        bucket,
        prefix=prefix or None,
        versions=True,
        fields="items(name,generation,size),nextPageToken",
        page_size=PAGE,
        page_token=token or None,
        timeout=timeout,
        retry=None,
    )
    try:
        page = next(iterator.pages)
    except NotFound as exc:
        if not is_definite(exc):
            raise
        return [], None
    versions = [
        Version(name=blob.name, generation=blob.generation, size=blob.size or 0) for blob in page
    ]
    return versions, iterator.next_page_token or None


def _delete_all(
    client: Any, *, bucket: str, versions: list[Version], timeout: tuple[float, float]
) -> list[tuple[int, str]]:
    """Send one batch; give (status, text) of each part, in order."""
    place = client.bucket(bucket)
    with client.batch(raise_exception=False) as batch:
        for version in versions:
            place.delete_blob(
                version.name, generation=version.generation, timeout=timeout, retry=None
            )
    return [
        (answer.status_code, answer.text if answer.status_code >= 300 else "")
        for answer in batch._responses  # noqa: SLF001 - the client gives them in no other way
    ]
