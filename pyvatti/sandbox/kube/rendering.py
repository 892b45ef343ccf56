"""Answers as the client asked for them: whole objects, metadata only, or table rows.

No storage; knows `Accept` and the shapes of lists and watch events.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from pyvatti.sandbox.kube import events, tables
from pyvatti.sandbox.kube.changes import Version
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.resources import EVENTS_V1, JOBS, PODS, Resource

Body = dict[str, Any]

META_VERSION = "meta.k8s.io/v1"
PLAIN, TABLE, METADATA = "", "Table", "PartialObjectMetadata"


def form_of(accept: str) -> str:
    """Read the form an Accept header asks for. Raises ApiError 406 where no JSON is acceptable."""
    for part in (accept or "*/*").split(","):
        media, *parameters = (item.strip() for item in part.split(";"))
        if not re.fullmatch(r"application/json|application/\*|\*/\*", media):
            continue
        wanted = dict(item.partition("=")[::2] for item in parameters).get("as", "")
        if wanted == TABLE:
            return TABLE
        return METADATA if wanted.startswith(METADATA) else PLAIN
    raise ApiError(
        406, "only the following media types are accepted: application/json", reason="NotAcceptable"
    )


@dataclass(frozen=True, slots=True)
class View:
    """One resource in one form; `include` (Object, Metadata, None) is for rows of a table.

    `clock` is asked for each row: ages grow while a watch is open.
    """

    resource: Resource
    form: str
    include: str
    clock: Callable[[], datetime]

    def one(self, body: Body) -> bytes:
        """Write a single object."""
        if self.form == TABLE:
            return orjson.dumps(self._table([body], with_columns=True))
        return orjson.dumps(self._object(body))

    def version(self, version: Version) -> bytes:
        """Write a single stored object."""
        if self._is_stored_form:
            return version.raw
        return self.one(version.body)

    def many(self, versions: list[Version], metadata: Body) -> bytes:
        """Write a list; `metadata` has resourceVersion, continue, remainingItemCount."""
        if self.form == TABLE:
            table = self._table([item.body for item in versions], with_columns=True)
            return orjson.dumps({**table, "metadata": metadata})
        if self._is_stored_form:
            items: Iterable[bytes] = (item.raw_item for item in versions)
        else:
            items = (orjson.dumps(self._item(item.body)) for item in versions)
        kind, api_version = self.resource.list_kind, self.resource.api_version
        if self.form == METADATA:
            kind, api_version = f"{METADATA}List", META_VERSION
        head = {"kind": kind, "apiVersion": api_version, "metadata": metadata}
        return orjson.dumps(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"

    def event(self, type_: str, version: Version, *, first: bool = False) -> bytes:
        """Write one event of a watch."""
        if self._is_stored_form:
            payload = version.raw
        elif self.form == TABLE:
            payload = orjson.dumps(self._table([version.body], with_columns=first))
        else:
            payload = orjson.dumps(self._object(version.body))
        return b'{"type":"' + type_.encode() + b'","object":' + payload + b"}\n"

    def bookmark(self, number: int, annotations: Body | None = None) -> bytes:
        """Write a bookmark, an object that carries a version and nothing else."""
        metadata: Body = {"resourceVersion": str(number), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        body: Body = {
            "kind": self.resource.kind,
            "apiVersion": self.resource.api_version,
            "metadata": metadata,
        }
        if self.form == METADATA:
            body |= {"kind": METADATA, "apiVersion": META_VERSION}
        elif self.form == TABLE:
            row = {
                "cells": [],
                "object": {"kind": METADATA, "apiVersion": META_VERSION, "metadata": metadata},
            }
            body = {"kind": TABLE, "apiVersion": META_VERSION, "metadata": {}, "rows": [row]}
        else:
            body |= _empty(self.resource)
        return orjson.dumps({"type": "BOOKMARK", "object": body}) + b"\n"

    @property
    def _is_stored_form(self) -> bool:
        return self.form == PLAIN and self.resource is not EVENTS_V1

    def _object(self, body: Body) -> Body:
        if self.form == METADATA:
            return _partial(body)
        return events.to_modern(body) if self.resource is EVENTS_V1 else body

    def _item(self, body: Body) -> Body:
        shown = self._object(body)
        if self.form == METADATA:
            return shown
        return {name: value for name, value in shown.items() if name not in ("kind", "apiVersion")}

    def _table(self, bodies: list[Body], *, with_columns: bool) -> Body:
        rows = []
        for body in bodies:
            row: Body = {"cells": tables.cells(self.resource, body, self.clock())}
            if self.include == "Object":
                row["object"] = body
            elif self.include != "None":
                row["object"] = _partial(body)
            rows.append(row)
        version = bodies[0]["metadata"].get("resourceVersion", "") if bodies else ""
        return {
            "kind": TABLE,
            "apiVersion": META_VERSION,
            "metadata": {"resourceVersion": version},
            "columnDefinitions": tables.columns(self.resource) if with_columns else None,
            "rows": rows,
        }


def _partial(body: Body) -> Body:
    return {"kind": METADATA, "apiVersion": META_VERSION, "metadata": body["metadata"]}


def _empty(resource: Resource) -> Body:
    """Give the zero value of a kind as Go writes it: required lists are null."""
    if resource is JOBS:
        template = {"metadata": {"creationTimestamp": None}, "spec": {"containers": None}}
        return {"spec": {"template": template}, "status": {}}
    return {"spec": {"containers": None}, "status": {}} if resource is PODS else {}
