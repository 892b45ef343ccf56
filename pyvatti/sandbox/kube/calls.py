"""One API request, read: which verb on which object, with which options.

No storage and no answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson
import yaml

from pyvatti.sandbox.kube import protobuf
from pyvatti.sandbox.kube.access import Attributes
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.resources import BY_PATH, EVENTS, EVENTS_V1, RESOURCES, Resource

Body = dict[str, Any]

JSON, YAML = "application/json", "application/yaml"
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
COLLECTION_VERBS = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
PROPAGATIONS = ("Background", "Foreground", "Orphan")


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. `plural` may be of a resource that is not stored, such as a review."""

    group: str
    version: str
    namespace: str
    plural: str
    name: str
    subresource: str


@dataclass(slots=True, kw_only=True)
class Call:
    """A request for a stored resource. `query` has the last value of each parameter."""

    resource: Resource
    target: Target
    verb: str
    query: Mapping[str, str]
    user: str
    agent: str
    accept: str
    media: str
    data: bytes
    warnings: list[str] = field(default_factory=list)

    @property
    def storage(self) -> Resource:
        """The resource under which the object is kept."""
        return EVENTS if self.resource is EVENTS_V1 else self.resource

    @property
    def namespace(self) -> str:
        """The namespace in the store: "" for what has none."""
        return self.target.namespace if self.resource.namespaced else ""

    @property
    def name(self) -> str:
        """The object's name, "" for a collection."""
        return self.target.name

    @property
    def manager(self) -> str:
        """The field manager: as given, else the program in User-Agent."""
        return self.query.get("fieldManager") or self.agent.partition("/")[0] or "unknown"

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be stored. Raises ApiError 422 for an unknown directive."""
        value = self.query.get("dryRun", "")
        if value not in ("", "All"):
            raise ApiError(422, f'dryRun: Unsupported value: "{value}": supported values: "All"')
        return value == "All"

    def flag(self, name: str) -> bool:
        """Give a boolean parameter."""
        return self.query.get(name, "").lower() in ("true", "1")

    def number(self, name: str) -> int | None:
        """Give an integer parameter. Raises ApiError 400."""
        text = self.query.get(name, "")
        if not text:
            return None
        try:
            return int(text)
        except ValueError as exc:
            raise ApiError(400, f'{name}: Invalid value: "{text}": must be an integer') from exc


def parse_target(path: str) -> Target | None:
    """Read a path such as /apis/batch/v1/namespaces/n/jobs/x/status; None if it names nothing."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        return None
    plural, name, subresource = (*rest, "", "")[:3]
    return Target(group, version, namespace, plural, name, subresource)


def resource_of(target: Target) -> Resource | None:
    """Give the stored resource a target is about."""
    return BY_PATH.get((target.group, target.version, target.plural))


def is_known_group(target: Target) -> bool:
    """Whether anything of the target's group and version is served."""
    return any((item.group, item.version) == (target.group, target.version) for item in RESOURCES)


def verb_of(method: str, target: Target, query: Mapping[str, str]) -> str:
    """Give the verb that permissions speak about. Raises ApiError 405."""
    watching = query.get("watch", "").lower() in ("true", "1")
    if method in ("GET", "HEAD") and not target.name and watching:
        return "watch"
    verbs = VERBS if target.name else COLLECTION_VERBS
    verb = verbs.get("GET" if method == "HEAD" else method)
    if verb is None or (method == "POST" and target.name and not target.subresource):
        raise ApiError(405, "the server does not allow this method on the requested resource")
    return verb


def attributes_of(target: Target, verb: str) -> Attributes:
    """Give what permissions are checked against: a Namespace counts as being in itself."""
    sub = f"/{target.subresource}" if target.subresource else ""
    is_namespace = (target.group, target.plural) == ("", "namespaces")
    where = target.name if is_namespace else target.namespace
    return Attributes(verb, target.group, target.plural + sub, where, target.name)


def decode(data: bytes, media: str) -> Any:
    """Parse a body. Raises ApiError 400 (syntax) or 415 (media type)."""
    kind = media.partition(";")[0].strip().lower()
    if kind in ("application/yaml", "application/apply-patch+yaml"):
        return _decode_yaml(data)
    if kind == protobuf.MEDIA_TYPE:
        return protobuf.decode(data)
    if kind and not kind.endswith("json"):
        raise ApiError(
            415,
            "the body of the request was in an unknown format - accepted media types include:"
            " application/json, application/yaml",
        )
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise ApiError(400, f"couldn't get version/kind; json parse error: {exc}") from exc


def _decode_yaml(data: bytes) -> Any:
    try:
        return orjson.loads(data)  # most YAML sent by programs is JSON
    except orjson.JSONDecodeError:
        pass
    try:
        # Through JSON, so that dates become an error and not an odd object.
        return orjson.loads(orjson.dumps(yaml.load(data, Loader=_Loader)))  # noqa: S506 - safe
    except (yaml.YAMLError, TypeError, ValueError) as exc:
        raise ApiError(400, f"error decoding YAML: {exc}") from exc


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: times stay texts."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How to delete. `propagation` None leaves it to the resource."""

    propagation: str | None
    grace_seconds: int | None
    uid: str | None
    resource_version: str | None
    dry_run: bool


def delete_options(call: Call) -> DeleteOptions:
    """Read DeleteOptions from the body and the query. Raises ApiError 400, 422."""
    body = decode(call.data, call.media) if call.data.strip() else {}
    if not isinstance(body, dict):
        raise ApiError(400, "expected DeleteOptions")
    propagation = body.get("propagationPolicy") or call.query.get("propagationPolicy") or None
    orphan = body.get("orphanDependents")
    if orphan is None and "orphanDependents" in call.query:
        orphan = call.flag("orphanDependents")
    if propagation and (propagation not in PROPAGATIONS or orphan is not None):
        raise ApiError(
            422,
            'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value:'
            f' "{propagation}": not a valid propagation policy',
        )
    if orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    grace = body.get("gracePeriodSeconds")
    preconditions = body.get("preconditions") or {}
    return DeleteOptions(
        propagation,
        call.number("gracePeriodSeconds") if grace is None else grace,
        preconditions.get("uid"),
        preconditions.get("resourceVersion"),
        call.dry_run or body.get("dryRun") == ["All"],
    )
