"""The HTTP calls of a simulated driver: objects of Cloud Storage and Seqera's trace protocol.

No decision about what is sent. Retries follow nf-tower (nextflow plugins/nf-tower) and gax.
"""

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import aiohttp

TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)
ENDLESS = aiohttp.ClientTimeout(total=None, connect=10)
RETRIED = (408, 429, 500, 502, 503, 504)
DELAY_LIMIT = 90.0  # seconds
MESSAGE_LIMIT = 255
NO_ID = "null"  # what stands in the addresses after a refused create


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is made, and the first pause (seconds); each next one is twice as long."""

    attempts: int
    delay: float


GAX = Retry(10, 0.35)
TOWER = Retry(5, 1.27)  # seen with nf-tower 1.17.5: five tries, given up after 19 s


class CallFailed(Exception):
    """A call got no good answer; `status` is 0 without any answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Wire:
    """A session that tries again; `speed` divides the pauses between two tries."""

    session: aiohttp.ClientSession
    speed: float = 1.0

    async def call(
        self,
        method: str,
        url: str,
        retry: Retry = GAX,
        timeout: aiohttp.ClientTimeout = TIMEOUT,  # noqa: ASYNC109 - aiohttp's own
        **options: Any,
    ) -> bytes:
        """Make a call, tried again where that may help. Raises CallFailed."""
        delay = retry.delay
        for attempt in range(1, retry.attempts + 1):
            try:
                async with self.session.request(method, url, timeout=timeout, **options) as answer:
                    body = await answer.read()
                    if answer.status < 400:
                        return body
                    failure = CallFailed(answer.status, f"{answer.status} from {method} {url}")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = CallFailed(0, f"{type(error).__name__} from {method} {url}")
            if attempt == retry.attempts or failure.status not in (0, *RETRIED):
                raise failure
            await asyncio.sleep(delay / self.speed)
            delay = min(delay * 2, DELAY_LIMIT)
        raise AssertionError("unreachable")

    async def put_object(self, storage: str, uri: str, content: bytes) -> None:
        """Upload a small object to `gs://bucket/name`. Raises CallFailed."""
        bucket, name = split_uri(uri)
        url = f"{storage}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, '')}"
        headers = {"Content-Type": "application/octet-stream"}
        await self.call("POST", url, data=content, headers=headers)

    async def has_object(self, storage: str, uri: str) -> bool:
        """Whether `gs://bucket/name` exists. Raises CallFailed for any answer but yes and no."""
        bucket, name = split_uri(uri)
        try:
            await self.call("GET", f"{storage}/storage/v1/b/{bucket}/o/{quote(name, '')}")
        except CallFailed as failure:
            if failure.status == 404:
                return False
            raise
        return True


@dataclass(slots=True, kw_only=True)
class Trace:
    """One run's side of the trace protocol. `workspace` is empty for a personal workspace."""

    wire: Wire
    endpoint: str
    token: str
    workspace: str
    run_name: str
    session_id: str = field(default_factory=lambda: str(uuid4()))
    workflow_id: str = NO_ID
    started: datetime | None = None
    workflow: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def begun(self) -> bool:
        """Whether Seqera took the beginning: only then is progress told; the end always is."""
        return self.started is not None

    async def create(self, project: str, repository: str) -> None:
        """Reserve an id. Raises CallFailed."""
        body = {
            "sessionId": self.session_id,
            "runName": self.run_name,
            "projectName": project,
            "repository": repository,
            "workflowId": None,
        }
        answer = await self._send("POST", "/trace/create", body)
        self.workflow_id = str(answer.get("workflowId", ""))

    async def begin(self, described: Mapping[str, Any]) -> None:
        """Tell that the run begins. Raises CallFailed."""
        now = datetime.now(UTC)
        self.workflow = {
            "id": self.workflow_id,
            "runName": self.run_name,
            "sessionId": self.session_id,
            "start": _iso(now),
            "complete": None,
            "resume": False,
            "success": False,
            **described,
        }
        body = {"workflow": self.workflow, "processNames": [], "towerLaunch": False}
        await self._send("PUT", f"/trace/{self.workflow_id}/begin", body)
        self.started = now

    async def progress(self, tasks: list[dict[str, Any]]) -> None:
        """Tell of changed tasks. Raises CallFailed."""
        body = {"tasks": tasks, "progress": self._progress(), "containers": []}
        await self._send("PUT", f"/trace/{self.workflow_id}/progress", body)

    async def heartbeat(self) -> None:
        """Tell that the driver lives. Raises CallFailed."""
        body = {"progress": self._progress()}
        await self._send("PUT", f"/trace/{self.workflow_id}/heartbeat", body)

    async def complete(
        self, *, success: bool, exit_status: int | None, error: str | None, report: str | None
    ) -> None:
        """Tell the end, without a limit of time for an answer. Raises CallFailed."""
        now = datetime.now(UTC)
        duration = now - (self.started or now)
        self.workflow |= {
            "complete": _iso(now),
            "duration": int(duration.total_seconds() * 1000),
            "success": success,
            "exitStatus": exit_status,
            "errorMessage": error[:MESSAGE_LIMIT] if error else None,
            "errorReport": report,
            "stats": {},
        }
        body = {"workflow": self.workflow, "metrics": [], "progress": self._progress()}
        await self._send("PUT", f"/trace/{self.workflow_id}/complete", body, timeout=ENDLESS)

    async def cancel_by_hand(self) -> None:
        """Cancel the run as a person does in Seqera's pages. Raises CallFailed."""
        await self._send("POST", f"/workflow/{self.workflow_id}/cancel?force=true", {})

    def _progress(self) -> dict[str, Any]:
        names = ("pending", "submitted", "running", "succeeded", "failed", "cached", "aborted")
        return {name: self.counts.get(name, 0) for name in names} | {"processes": []}

    async def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any],
        timeout: aiohttp.ClientTimeout = TIMEOUT,  # noqa: ASYNC109 - aiohttp's own
    ) -> dict[str, Any]:
        instant = int(datetime.now(UTC).timestamp() * 1000)
        query = {"workspaceId": self.workspace} if self.workspace else {}
        headers = {
            "Authorization": authorization(self.token),
            "User-Agent": "Nextflow/sandbox",
        }
        raw = await self.wire.call(
            method, self.endpoint + path, params=query, headers=headers,
            json=body | {"instant": instant}, retry=TOWER, timeout=timeout,
        )  # fmt: skip
        return _object(raw)


def authorization(token: str) -> str:
    """Give the header nf-tower sends: Bearer for a JWT or a Platform token, else Basic."""
    if token.count(".") == 2 or _is_platform_token(token):
        return f"Bearer {token}"
    return "Basic " + base64.b64encode(f"@token:{token}".encode()).decode()


def split_uri(uri: str) -> tuple[str, str]:
    """Split `gs://bucket/name`. Raises ValueError."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, name = rest.partition("/")
    if scheme != "gs" or not separator or not bucket:
        raise ValueError(f"not a gs:// address: {uri}")
    return bucket, name


def _is_platform_token(token: str) -> bool:
    try:
        decoded = base64.b64decode(token + "=" * (-len(token) % 4), validate=True)
    except ValueError:
        return False
    return decoded.startswith(b"{") and b"}." in decoded


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
