"""Writes Kubernetes Events as the controllers and the kubelet do.

No decision about when.
"""

import secrets
from collections import OrderedDict
from contextlib import suppress
from typing import TypeAlias

from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.resources import EVENTS
from pyvatti.sandbox.kube.store import Body, Store, timestamp

CACHE = 4096  # remembered Events, as many as client-go's EventCorrelator

EventKey: TypeAlias = tuple[str, str, str, str]


class Recorder:
    """Records Events of one component; equal ones become one Event with a growing count."""

    def __init__(self, store: Store, component: str, host: str = "") -> None:
        self._store = store
        self._component = component
        self._host = host
        self._names: OrderedDict[EventKey, str] = OrderedDict()

    def record(
        self, about: Body, kind: str, reason: str, message: str, field_path: str = ""
    ) -> None:
        """Record an Event of type `kind` (Normal, Warning) about an object.

        In a terminating namespace nothing is written.
        """
        key = (about["metadata"]["uid"], reason, message, field_path)
        namespace = about["metadata"]["namespace"]
        known = self._names.get(key)
        if known and self._store.mutate(EVENTS, namespace, known, self._again):
            self._names.move_to_end(key)
            return
        name = f"{about['metadata']['name'][:200]}.{secrets.token_hex(8)}"
        moment = timestamp(self._store.now())
        body = self._body(about, kind, reason, message) | {
            "metadata": {"name": name, "namespace": namespace},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "eventTime": None,
        }
        if field_path:
            body["involvedObject"]["fieldPath"] = field_path
        self._create(namespace, body)
        self._names[key] = name
        while len(self._names) > CACHE:
            self._names.popitem(last=False)

    def record_new_style(self, about: Body, kind: str, reason: str, message: str) -> None:
        """Record an Event as the scheduler does (events.k8s.io): eventTime, no count."""
        namespace = about["metadata"]["namespace"]
        now = self._store.now()
        body = self._body(about, kind, reason, message) | {
            "metadata": {
                "name": f"{about['metadata']['name'][:200]}.{secrets.token_hex(8)}",
                "namespace": namespace,
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "firstTimestamp": None,
            "lastTimestamp": None,
            "action": "Scheduling",
            "source": {},
            "reportingInstance": f"{self._component}-sandbox",
        }
        self._create(namespace, body)

    def _body(self, about: Body, kind: str, reason: str, message: str) -> Body:
        metadata = about["metadata"]
        source = {"component": self._component}
        return {
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": source | ({"host": self._host} if self._host else {}),
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }

    def _again(self, event: Body) -> None:
        event["count"] = event.get("count", 1) + 1
        event["lastTimestamp"] = timestamp(self._store.now())

    def _create(self, namespace: str, body: Body) -> None:
        with suppress(ApiError):  # Events are best effort everywhere
            self._store.create(EVENTS, namespace, body)
