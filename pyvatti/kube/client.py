"""The Kubernetes API as this service uses it: dicts in, dicts and our own values out.

No caching and no decisions here; how one call is made is `transport`, what an answer means is
`answers`. Writes never retry by themselves: a caller that got no answer reads by name first.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import aiohttp

from pyvatti.errors import NamespaceTerminating, NotFound, Rejected, Unavailable
from pyvatti.kube.answers import (
    Expired,
    Malformed,
    clean,
    decode,
    read_cluster_event,
    read_event,
    read_object,
    read_stored,
    split_lines,
)
from pyvatti.kube.credentials import Credentials
from pyvatti.kube.transport import MERGE_PATCH, Call, Limits, Transport
from pyvatti.labels import KUEUE_JOB_UID
from pyvatti.models import ClusterEvent, Manifest
from pyvatti.paging import pages
from pyvatti.settings import Settings

METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA_OBJECT = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
FULL_LISTS = 3
WATCH_MARGIN = 15.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource of the API: plural name, API group ("" is core), version, kind of its objects."""

    plural: str
    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        """`apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version


JOBS = Kind("jobs", "batch", "v1", "Job")
SECRETS = Kind("secrets", "", "v1", "Secret")
CONFIGMAPS = Kind("configmaps", "", "v1", "ConfigMap")
PODS = Kind("pods", "", "v1", "Pod")
EVENTS = Kind("events", "events.k8s.io", "v1", "Event")
LEASES = Kind("leases", "coordination.k8s.io", "v1", "Lease")
WORKLOADS = tuple(  # of Kueue, the newest version first; an older Kueue knows the other alone
    Kind("workloads", "kueue.x-k8s.io", version, "Workload") for version in ("v1beta2", "v1beta1")
)
NAMESPACES = Kind("namespaces", "", "v1", "Namespace")  # only our own is read, see `own_namespace`


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a list. `continue_` asks for the next one and is empty on the last."""

    items: list[Manifest]
    resource_version: str
    continue_: str = ""


class KubeClient:
    """All requests to the API server, in one namespace.

    Every method raises Unavailable (Denied, QuotaExceeded, PolicyDenied) or Rejected
    (NamespaceTerminating) where nothing else is said.
    """

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self._log_slots = asyncio.Semaphore(transport.limits.log_follows)
        self.namespace = namespace
        self.terminating = asyncio.Event()  # a call was refused because the namespace goes

    @classmethod
    async def connect(cls, settings: Settings, limits: Limits | None = None) -> "KubeClient":
        """Use the kubeconfig of the settings, else the pod's service account.

        Raises ConfigurationError. Nothing is asked of the API server yet.
        """
        return await cls.open(
            Credentials(settings.kubeconfig), settings.namespace, limits, settings.extra_ca_file
        )

    @classmethod
    async def open(
        cls,
        credentials: Credentials,
        namespace: str,
        limits: Limits | None = None,
        authorities: str = "",
    ) -> "KubeClient":
        """Make a client with these credentials, limits and further authorities (a PEM file).

        Raises ConfigurationError.
        """
        transport = await Transport.connect(credentials, limits or Limits(), authorities)
        return cls(transport, namespace)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def create(self, kind: Kind, body: Manifest, *, dry_run: bool = False) -> Manifest:
        """POST an object; unknown fields are refused.

        Raises AlreadyExists; QuotaExceeded; NotFound without the namespace. After Unavailable it
        may exist nevertheless.
        """
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        # What a Secret holds is known here: it need not travel back.
        accept = METADATA_OBJECT if kind is SECRETS else "application/json"
        answer = await self._send("POST", kind, query=query, body=body, accept=accept)
        return read_object(answer) if dry_run else read_stored(answer)

    async def get(self, kind: Kind, name: str) -> Manifest | None:
        """Read one object; None only when the API server itself says that it does not exist."""
        try:
            return read_stored(await self._send("GET", kind, name, idempotent=True))
        except NotFound:
            return None

    async def own_namespace(self) -> Manifest | None:
        """Read the Namespace this client works in; None only when the API server says so."""
        path = f"/api/{NAMESPACES.version}/namespaces/{quote(self.namespace, safe='')}"
        call = Call(method="GET", path=path, idempotent=True)
        try:
            found = read_stored(await self._transport.exchange(call))
        except NotFound:
            return None
        if found["kind"] != NAMESPACES.kind:
            raise Malformed("namespaces: not a Namespace")
        return found

    async def list_page(
        self,
        kind: Kind,
        *,
        selector: str = "",
        field_selector: str = "",
        limit: int = 500,
        continue_: str = "",
        metadata_only: bool = False,
    ) -> Page:
        """Read up to `limit` objects. Raises Expired (a TransientError) for an old `continue_`."""
        query = {
            "labelSelector": selector,
            "fieldSelector": field_selector,
            "limit": str(limit),
            "continue": continue_,
        }
        accept = METADATA_ONLY if metadata_only else "application/json"
        body = await self._send("GET", kind, query=query, accept=accept, idempotent=True)
        return _read_page(kind, body)

    async def list_all(
        self,
        kind: Kind,
        *,
        selector: str = "",
        field_selector: str = "",
        limit: int = 500,
        keep: Callable[[list[Manifest]], list[Manifest]] = list,
    ) -> Page:
        """Read all pages of one snapshot; when it expires in between, begin again.

        `keep` gives what is wanted of a page, so that never all objects are held whole.
        """
        query: dict[str, Any] = {"selector": selector, "field_selector": field_selector}
        for _ in range(FULL_LISTS):
            try:
                return await self._list_once(kind, keep, limit, query)
            except Expired:
                continue
        raise Unavailable(f"{kind.plural}: {FULL_LISTS} lists expired before their last page")

    async def merge_patch(self, kind: Kind, name: str, patch: Manifest) -> Manifest:
        """Write some fields, where `patch.metadata.resourceVersion` is still the current one.

        Raises Conflict when it is not, NotFound without the object.
        """
        return read_stored(
            await self._send("PATCH", kind, name, body=patch, content_type=MERGE_PATCH)
        )

    async def replace(self, kind: Kind, name: str, body: Manifest) -> Manifest:
        """PUT a whole object, fenced by its resourceVersion and uid. Raises Conflict, NotFound."""
        return read_stored(await self._send("PUT", kind, name, body=body))

    async def delete(
        self,
        kind: Kind,
        name: str,
        *,
        uid: str | None = None,
        propagation: str = "Foreground",
        grace_seconds: int | None = None,
    ) -> Manifest | None:
        """DELETE an object: its last form or a Status, or None when it does not exist.

        Raises Conflict when the name now belongs to another uid.
        """
        options: Manifest = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
        }
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            return read_stored(
                await self._send("DELETE", kind, name, body=options, idempotent=True)
            )
        except NotFound:
            return None

    async def watch(
        self,
        kind: Kind,
        *,
        selector: str,
        resource_version: str,
        timeout_seconds: int = 240,
        idle_seconds: float = 75.0,
    ) -> AsyncGenerator[Manifest, None]:
        """Give {"type", "object"} events and bookmarks until the server ends the stream.

        Close it with `contextlib.aclosing`. Raises Expired, and Idle after `idle_seconds` without
        any byte: a future resourceVersion and a half-open connection are just silent.
        """
        call = self._call(
            "GET",
            kind,
            query={
                "watch": "true",
                "allowWatchBookmarks": "true",
                "labelSelector": selector,
                "resourceVersion": resource_version,
                "timeoutSeconds": str(timeout_seconds),
            },
        )
        timeout = self._stream_timeout(timeout_seconds + WATCH_MARGIN, idle_seconds)
        async with self._transport.stream(call, timeout) as response:
            async for line in split_lines(response.content.iter_any()):
                yield read_event(line)

    async def pod_log(
        self, pod: str, container: str, *, follow: bool, tail_lines: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Give a container's log in chunks of bytes, while it lives if `follow`.

        Raises NotFound without the pod, Rejected while the container waits, Unavailable beyond
        the bound of followed logs.
        """
        query = {"container": container, "follow": "true" if follow else ""}
        if tail_lines is not None:
            query["tailLines"] = str(tail_lines)
        call = self._call("GET", PODS, pod, "/log", query=query, accept="*/*")
        limits = self._transport.limits
        longest = (limits.log_total, limits.log_idle) if follow else (limits.total, limits.total)
        timeout = self._stream_timeout(*longest)
        if self._log_slots.locked():
            raise Unavailable("too many logs are being read", retry_after=10)
        async with self._log_slots, self._transport.stream(call, timeout) as response:
            async for chunk in response.content.iter_any():
                yield chunk

    async def events_about(self, uid: str) -> list[ClusterEvent]:
        """Read the Events that regard the Job or Pod of this uid, oldest first."""
        page = await self.list_all(EVENTS, field_selector=f"regarding.uid={uid}")
        events = [read_cluster_event(item) for item in page.items]
        return sorted(events, key=lambda event: event.at.timestamp() if event.at else 0.0)

    async def workload_of(self, uid: str) -> Manifest | None:
        """Read the Workload that Kueue made of the Job of this uid, None where it made none.

        Asked once in each version of Kueue's API. Raises Unavailable where the cluster has none.
        """
        query = {"labelSelector": f"{KUEUE_JOB_UID}={uid}", "limit": "1"}
        for kind in WORKLOADS:
            try:
                page = _read_page(kind, await self._send("GET", kind, query=query))
            except Unavailable:
                if kind is WORKLOADS[-1]:
                    raise
            else:
                return page.items[0] if page.items else None
        return None

    async def review_access(self, verb: str, kind: Kind, subresource: str = "") -> bool:
        """Ask whether we may do this in our namespace (SelfSubjectAccessReview)."""
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": kind.group,
            "resource": kind.plural,
            "subresource": subresource,
        }
        if kind is NAMESPACES:
            attributes["name"] = self.namespace
        call = Call(
            method="POST",
            path="/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
            idempotent=True,
        )
        status = read_object(await self._transport.exchange(call)).get("status")
        return isinstance(status, dict) and status.get("allowed") is True

    async def _list_once(
        self,
        kind: Kind,
        keep: Callable[[list[Manifest]], list[Manifest]],
        limit: int,
        query: dict[str, Any],
    ) -> Page:
        items: list[Manifest] = []

        async def fetch(token: str) -> tuple[Page, str]:
            page = await self.list_page(kind, limit=limit, continue_=token, **query)
            return replace(page, items=keep(page.items)), page.continue_

        async for page in pages(f"list {kind.plural}", fetch):
            items += page.items
        return replace(page, items=items)

    async def _send(self, method: str, kind: Kind, name: str = "", **more: Any) -> bytes:
        try:
            return await self._transport.exchange(self._call(method, kind, name, **more))
        except NamespaceTerminating:
            self.terminating.set()
            raise

    def _call(
        self,
        method: str,
        kind: Kind,
        name: str = "",
        subresource: str = "",
        *,
        query: dict[str, str] | None = None,
        **more: Any,
    ) -> Call:
        if name and not NAME.fullmatch(name):
            raise Rejected(f"{kind.plural}: not a name of an object")
        root = f"/apis/{kind.group}" if kind.group else "/api"
        place = f"{root}/{kind.version}/namespaces/{quote(self.namespace, safe='')}"
        return Call(
            method=method,
            path=f"{place}/{kind.plural}" + (f"/{name}" if name else "") + subresource,
            query={key: value for key, value in (query or {}).items() if value},
            private=kind is SECRETS,
            urgent=kind is LEASES,
            **more,
        )

    def _stream_timeout(self, total: float, idle: float) -> aiohttp.ClientTimeout:
        connect = self._transport.limits.connect
        return aiohttp.ClientTimeout(
            total=total, connect=connect, sock_connect=connect, sock_read=idle
        )


def _read_page(kind: Kind, body: bytes) -> Page:
    """Read {"items", "metadata": {"resourceVersion", "continue"}}. Raises Malformed."""
    answer = decode(body)
    metadata, items = answer.get("metadata"), answer.get("items") or []
    if not isinstance(metadata, dict) or not isinstance(items, list):
        raise Malformed(f"{kind.plural}: a list without metadata or items")
    version = metadata.get("resourceVersion")
    if not isinstance(version, str) or not str(answer.get("kind", "")).endswith("List"):
        raise Malformed(f"{kind.plural}: a list without kind or resourceVersion")
    # Items of a list carry neither apiVersion nor kind; objects of a watch do.
    stamp = {"apiVersion": kind.api_version, "kind": kind.kind}
    return Page(
        items=[stamp | clean(item) for item in items if isinstance(item, dict)],
        resource_version=version,
        continue_=str(metadata.get("continue") or ""),
    )
