"""The stand-in as a server on a loopback socket, and everything a test may look at or turn.

No API rules: those are in the modules beside it.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from aiohttp import web

from pyvatti.sandbox.loopback import Loopback
from pyvatti.sandbox.storage import lifecycle
from pyvatti.sandbox.storage.routes import PartFault, Routes
from pyvatti.sandbox.storage.state import Bucket, SoftDeleted, State, Upload, Version, new_upload
from pyvatti.sandbox.storage.wire import Call, Json, refusal


class StorageStandIn(Loopback):
    """Google Cloud Storage for one project: `async with StorageStandIn() as storage`.

    Address it by STORAGE_EMULATOR_HOST = `storage.url`. `clock` gives UTC; `advance` moves it.
    `rate_limit` refuses bucket creates and deletes above one per `bucket_seconds`, as the
    service does.
    """

    def __init__(
        self,
        port: int = 0,
        project: str = "intervene",
        *,
        rate_limit: bool = False,
        bucket_seconds: float = 2.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(port=port)
        self.faults.spell = refusal
        self.drip = 0.0  # seconds between two bytes of every answer
        self._clock = clock
        self._offset = timedelta(0)
        self.state = State(project, self.now)
        self._routes = Routes(self.state, rate_limit=rate_limit, bucket_seconds=bucket_seconds)

    def routes(self) -> Iterable[web.RouteDef]:
        """Take every path undecoded: object names may hold encoded slashes."""
        return (web.route("*", "/{path:.*}", self._answer),)

    @property
    def buckets(self) -> dict[str, Bucket]:
        """All buckets by name, with their properties and objects."""
        return self.state.buckets

    @property
    def soft_deleted(self) -> list[SoftDeleted]:
        """What was deleted and could still be restored."""
        return self.state.soft_deleted

    @property
    def counters(self) -> Counter[str]:
        """Calls by kind, such as `buckets.insert`; parts of a batch count one by one."""
        return self._routes.counters

    @property
    def rate_limit(self) -> bool:
        """Whether the rate rule of bucket calls applies."""
        return self._routes.rate_limit

    @rate_limit.setter
    def rate_limit(self, on: bool) -> None:
        self._routes.rate_limit = on

    def now(self) -> datetime:
        """Give the stand-in's time (UTC)."""
        return self._clock() + self._offset

    def advance(self, time_passed: timedelta) -> None:
        """Let time pass and apply lifecycle rules."""
        self._offset += time_passed
        self.apply_lifecycle()

    def apply_lifecycle(self) -> None:
        """Remove what has aged out by now."""
        lifecycle.apply(self.state)

    def calls_per_second(self, *kinds: str) -> Counter[int]:
        """Count calls of these kinds by second of the monotonic clock."""
        return Counter(int(at) for at, kind in self._routes.calls if kind in kinds)

    def add_bucket(
        self,
        name: str,
        project: str | None = None,
        *,
        grants: Iterable[str] = (),
        **properties: object,
    ) -> Bucket:
        """Add a bucket directly, without soft delete if nothing else is said.

        `project` names somebody else's, whose `grants` are what we may do with it all the same,
        such as `storage.buckets.get` where it is public.
        """
        whole = {"softDeletePolicy": {"retentionDurationSeconds": "0"}} | properties
        made = Bucket(name, project or self.state.project, self.now(), whole)
        made.grants = frozenset(grants)
        self.state.buckets[name] = made
        return made

    def put_object(self, bucket: str, name: str, data: bytes, **properties: object) -> Version:
        """Write an object directly; `temporaryHold=True` puts it under a hold."""
        return self.state.put(self.state.buckets[bucket], name, data, dict(properties))

    def start_upload(self, bucket: str, name: str, data: bytes) -> Upload:
        """Begin an XML multipart upload directly and leave it unfinished."""
        place = self.state.buckets[bucket]
        upload = new_upload(self.state, place, name, {})
        upload.parts[1] = data
        place.uploads[upload.id] = upload
        return upload

    def deny(self, *permissions: str) -> None:
        """Take permissions such as `storage.buckets.get` away (403)."""
        self.state.denied.update(permissions)

    def allow(self) -> None:
        """Give all permissions back."""
        self.state.denied.clear()

    def force_policy(self, policy: Json) -> None:
        """Refuse (412) new buckets and changes with other properties, as an organisation may."""
        self.state.organisation_policy = policy

    def make_otherwise(self, properties: Json) -> None:
        """Give every new bucket these properties, whatever was asked for: a server's fault."""
        self.state.made_otherwise = properties

    def hide_buckets(self, *names: str) -> None:
        """Leave buckets out of lists and report them as unreachable."""
        self.state.unreachable = list(names)

    def write_before_delete(self, bucket: str, count: int = 1) -> None:
        """Let somebody write an object just before each of the next bucket deletes."""
        self.state.late_writes[bucket] = count

    def fail_parts(
        self, status: int, *, name: str = "", count: int = 1, after: bool = False
    ) -> None:
        """Fail parts of batches whose path matches; `after`: their change is made all the same."""
        self._routes.part_faults.append(PartFault(status, re.compile(name), count, after))

    def clear_part_faults(self) -> None:
        """Answer all parts of batches again."""
        self._routes.part_faults.clear()

    def recoverable(self) -> list[str]:
        """Name everything deleted that can still be restored."""
        return self.state.recoverable()

    def leftovers(self) -> list[str]:
        """Name all buckets, objects and unfinished uploads, soft-deleted ones included."""
        return self.state.leftovers()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        call = Call(
            method=request.method,
            path=request.raw_path,
            query={},
            headers=request.headers,
            body=await request.read(),
            base=f"{request.scheme}://{request.host}",
        )
        answer = self._routes.answer(call)
        if self.drip:
            return await self._drip(request, answer.status, answer.body)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _drip(self, request: web.Request, status: int, body: bytes) -> web.StreamResponse:
        """Send an answer byte by byte: each byte is early enough, the whole is not."""
        response = web.StreamResponse(status=status)
        response.content_length = len(body)
        await response.prepare(request)
        for byte in body:
            await asyncio.sleep(self.drip)
            await response.write(bytes([byte]))
        return response
