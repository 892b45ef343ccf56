"""PURE: what an operator chooses for the driver's pod beside its image and its size: DRIVER_POD.

Names and shapes are those of a Kubernetes pod, and what is not named here is refused. Nothing here
takes a protection or one of our labels away: the pod is never root, and seccomp stays on.
"""

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_settings import NoDecode

from pyvatti import labels

LARGEST_ID = 2**31 - 1  # of users and groups, in Kubernetes
# Keys that say whose a pod is, queue it, or switch off what confines it; with their subdomains
RESERVED_DOMAINS = (
    labels.PREFIX,
    "app.kubernetes.io",
    "batch.kubernetes.io",
    "kueue.x-k8s.io",
    "container.apparmor.security.beta.kubernetes.io",
    "seccomp.security.alpha.kubernetes.io",
)
# What the Job controller writes without a domain, and what job.yaml.j2 writes
RESERVED_KEYS = ("job-name", "controller-uid", "cluster-autoscaler.kubernetes.io/safe-to-evict")

_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_DOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_KEY = re.compile(rf"(?:({_DOMAIN})/)?{_NAME}", re.ASCII)
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"


def _key(value: str) -> str:
    found = _KEY.fullmatch(value)
    if not found or len(found[1] or "") > 253:
        raise ValueError("must be a key such as example.org/name")
    return value


def _free(key: str) -> str:
    domain = key.rpartition("/")[0]
    if key in RESERVED_KEYS or any(
        domain == ours or domain.endswith(f".{ours}") for ours in RESERVED_DOMAINS
    ):
        raise ValueError("this key belongs to pyvatti or Kubernetes and cannot be set")
    return key


def _no_id(value: Any) -> Any:
    return None if value == "" else value


Key = Annotated[str, AfterValidator(_key)]
FreeKey = Annotated[Key, AfterValidator(_free)]
Value = Annotated[str, Field(pattern=rf"^({_NAME})?$")]
ObjectName = Annotated[str, Field(pattern=rf"^{_DOMAIN}$", max_length=253)]
ObjectNameOrNone = Annotated[str, Field(pattern=rf"^({_DOMAIN})?$", max_length=253)]
UserId = Annotated[int | None, Field(ge=1, le=LARGEST_ID), BeforeValidator(_no_id)]
GroupId = Annotated[int | None, Field(ge=0, le=LARGEST_ID), BeforeValidator(_no_id)]
Weight = Annotated[int, Field(ge=1, le=100)]


class _Part(BaseModel):
    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
    )


class Toleration(_Part):
    """A taint that the pod tolerates."""

    key: Annotated[str, AfterValidator(lambda key: key and _key(key))] = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: Value = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: int | None = Field(None, ge=0, le=LARGEST_ID)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError("value must be empty where operator is Exists")
        if self.operator == "Equal" and not self.key:
            raise ValueError("key must be set unless operator is Exists")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds needs effect NoExecute")
        return self


class _Requirement(_Part):
    key: Key
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[Value] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.operator in ("Exists", "DoesNotExist") and self.values:
            raise ValueError(f"values must be empty where operator is {self.operator}")
        if self.operator in ("In", "NotIn") and not self.values:
            raise ValueError(f"values must be set where operator is {self.operator}")
        if self.operator in ("Gt", "Lt") and not (
            len(self.values) == 1 and re.fullmatch("[0-9]+", self.values[0], re.ASCII)
        ):
            raise ValueError(f"values must be one whole number where operator is {self.operator}")
        return self


class _LabelRequirement(_Requirement):
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]


class _FieldRequirement(_Part):
    key: Literal["metadata.name"]
    operator: Literal["In", "NotIn"]
    values: list[ObjectName] = Field(min_length=1, max_length=1)


class _NodeTerm(_Part):
    match_expressions: list[_Requirement] = []
    match_fields: list[_FieldRequirement] = []


class _NodeSelector(_Part):
    node_selector_terms: list[_NodeTerm] = Field(min_length=1)


class _PreferredNode(_Part):
    weight: Weight
    preference: _NodeTerm


class _NodeAffinity(_Part):
    required: _NodeSelector | None = Field(
        None, alias="requiredDuringSchedulingIgnoredDuringExecution"
    )
    preferred: list[_PreferredNode] = Field(
        [], alias="preferredDuringSchedulingIgnoredDuringExecution"
    )


class _LabelSelector(_Part):
    match_labels: dict[Key, Value] = {}
    match_expressions: list[_LabelRequirement] = []


class _PodTerm(_Part):
    topology_key: Key
    label_selector: _LabelSelector | None = None
    namespace_selector: _LabelSelector | None = None
    namespaces: list[ObjectName] = []
    match_label_keys: list[Key] = []
    mismatch_label_keys: list[Key] = []


class _PreferredPod(_Part):
    weight: Weight
    pod_affinity_term: _PodTerm


class _PodAffinity(_Part):
    required: list[_PodTerm] = Field([], alias="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: list[_PreferredPod] = Field(
        [], alias="preferredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(_Part):
    """Nodes and other pods that the pod wants to be near to, or far from."""

    node_affinity: _NodeAffinity | None = None
    pod_affinity: _PodAffinity | None = None
    pod_anti_affinity: _PodAffinity | None = None


class SeccompProfile(_Part):
    """The container runtime's profile, or one that lies on the nodes."""

    type: Literal["RuntimeDefault", "Localhost"] = "RuntimeDefault"
    localhost_profile: str | None = Field(None, pattern=rf"^{_SEGMENT}(/{_SEGMENT})*$")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.type == "Localhost") != (self.localhost_profile is not None):
            raise ValueError("localhostProfile must be set where type is Localhost, there alone")
        return self


class PullSecret(_Part):
    """A Secret with registry credentials."""

    name: ObjectName


class DriverPod(_Part):
    """Fields of the driver's pod. A user or group that is null or "" is chosen by the cluster."""

    run_as_user: UserId = 65532
    run_as_group: GroupId = 65532
    fs_group: GroupId = 65532
    seccomp_profile: SeccompProfile = SeccompProfile()
    labels: dict[FreeKey, Value] = {}
    annotations: dict[FreeKey, str] = {}
    node_selector: dict[Key, Value] = {}
    tolerations: list[Toleration] = []
    affinity: Affinity = Affinity()
    priority_class_name: ObjectNameOrNone = ""
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    image_pull_secrets: list[PullSecret] = []

    def __str__(self) -> str:
        """Give JSON of what differs from the defaults."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)

    def plain(self) -> dict[str, Any]:
        """Give what a template writes, as mappings, lists, text and numbers.

        Keys: `labels`, `annotations`, `imagePullPolicy`, `securityContext` (ids that were chosen,
        and seccomp) and `placement` (the other fields of a pod's spec, where they were set).
        """
        identity = {"run_as_user", "run_as_group", "fs_group"}
        free = {"labels", "annotations", "image_pull_policy", "seccomp_profile"}
        seccomp = self.seccomp_profile.model_dump(by_alias=True, exclude_none=True)
        return {
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "imagePullPolicy": self.image_pull_policy,
            "securityContext": {
                **self.model_dump(by_alias=True, exclude_none=True, include=identity),
                "seccompProfile": seccomp,
            },
            "placement": self.model_dump(
                by_alias=True, exclude_defaults=True, exclude=identity | free
            ),
        }


def _read(value: Any) -> Any:
    """Parse JSON text; anything else passes. Raises ValueError that says where it is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"must be a JSON object: {error.msg}, line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise ValueError("must be a JSON object of a few levels") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("must not hold a key twice")
    return found


# Text is JSON, which pydantic-settings must leave to us, for it would not name the variable
DriverPodJson = Annotated[DriverPod, NoDecode, BeforeValidator(_read)]
