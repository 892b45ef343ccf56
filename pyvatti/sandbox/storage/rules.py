"""What Cloud Storage refuses with 400: names, fields and values that it does not know.

No state. What the service knows and the stand-in does not is refused too, never ignored.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from pyvatti.sandbox.storage.wire import ApiError, Json

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
MOST_LABELS = 64
WEEK = int(timedelta(days=7).total_seconds())
LONGEST = int(timedelta(days=90).total_seconds())
MOST_RULES = 100
REGION = re.compile(
    r"(africa|asia|australia|europe|me|northamerica|southamerica|us)-[a-z]{4,9}[0-9]{1,2}"
)
PLACES = {"us", "eu", "asia", "nam4", "eur4", "eur5", "eur7", "eur8", "asia1"}
CLASSES = {"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL"}
ACTIONS = {"Delete", "SetStorageClass", "AbortIncompleteMultipartUpload"}
NUMBERS = {"age", "daysSinceCustomTime", "daysSinceNoncurrentTime", "numNewerVersions"}
LISTS = {"matchesPrefix", "matchesSuffix", "matchesStorageClass"}
TIMES = {"createdBefore", "customTimeBefore", "noncurrentTimeBefore"}
OF_UPLOADS = {"age", "matchesPrefix", "matchesSuffix"}
# Given out and, where a caller sends them, ignored.
OUTPUT = frozenset(
    [
        "etag",
        "generation",
        "hardDeleteTime",
        "id",
        "kind",
        "locationType",
        "metageneration",
        "owner",
        "projectNumber",
        "satisfiesPZI",
        "satisfiesPZS",
        "selfLink",
        "softDeleteTime",
        "timeCreated",
        "updated",
    ]
)
FIXED = ("name", "location")  # a bucket keeps them for life
SETTABLE = frozenset(
    [
        "autoclass",
        "billing",
        "cors",
        "defaultEventBasedHold",
        "encryption",
        "iamConfiguration",
        "labels",
        "lifecycle",
        "location",
        "logging",
        "objectRetention",
        "retentionPolicy",
        "rpo",
        "softDeletePolicy",
        "storageClass",
        "versioning",
        "website",
    ]
)
COMMON = frozenset(["alt", "fields", "key", "prettyPrint", "quotaUser", "userProject"])
PARAMETERS: Mapping[str, frozenset[str]] = {
    kind: COMMON | frozenset(names.split())
    for kind, names in {
        "buckets.insert": "project projection",
        "buckets.list": (
            "project prefix maxResults pageToken projection returnPartialSuccess softDeleted"
        ),
        "buckets.get": "projection ifMetagenerationMatch",
        "buckets.patch": "projection ifMetagenerationMatch",
        "buckets.delete": "ifMetagenerationMatch",
        "objects.list": (
            "delimiter endOffset maxResults pageToken prefix projection softDeleted startOffset "
            "versions"
        ),
        "objects.get": "generation ifGenerationMatch ifMetagenerationMatch projection",
        "objects.patch": "generation ifGenerationMatch ifMetagenerationMatch projection",
        "objects.delete": "generation ifGenerationMatch ifMetagenerationMatch",
        "objects.insert": "ifGenerationMatch name uploadType upload_id",
        "uploads.cancel": "uploadType upload_id",
    }.items()
}


def invalid(message: str) -> ApiError:
    """Give the 400."""
    return ApiError(400, "invalid", message)


def check_parameters(kind: str, query: Mapping[str, str]) -> None:
    """Refuse what this kind of call does not know, so that nothing is ignored unseen."""
    known = PARAMETERS.get(kind)
    if known is None:
        return
    for key in query:
        if key not in known:
            raise invalid(f"The stand-in does not know the parameter '{key}' of {kind}.")
    if query.get("projection", "noAcl") not in ("noAcl", "full"):  # no access lists to show
        raise invalid(f"Invalid value '{query['projection']}' for parameter 'projection'.")
    for key in ("maxResults", "generation", "ifGenerationMatch", "ifMetagenerationMatch"):
        if not re.fullmatch(r"[0-9]{1,19}", query.get(key, "0")):
            raise invalid(f"Invalid value '{query[key]}' for parameter '{key}'.")


def check_name(name: str) -> None:
    """Refuse a bad bucket name (cloud.google.com/storage/docs/buckets#naming)."""
    parts = name.split(".")
    if (
        not NAME.fullmatch(name)
        or not all(0 < len(part) <= 63 for part in parts)
        or name.startswith("goog")
        or re.search("g[o0]{2}g[l1]e", name)
        or _is_address(name)
    ):
        raise invalid(f"Invalid bucket name: '{name}'")
    if len(parts) > 1:
        text = "The bucket you tried to create is a domain name owned by another user."
        raise ApiError(403, "forbidden", text)


def check_object_name(name: str) -> None:
    """Refuse a bad object name (cloud.google.com/storage/docs/objects#naming)."""
    if (
        name in ("", ".", "..")
        or len(name.encode(errors="replace")) > 1024
        or re.search("[\r\n]", name)
        or name.startswith(".well-known/acme-challenge/")
    ):
        raise invalid(f"Invalid object name: '{name[:80]}'")


def check_bucket(body: Json) -> None:
    """Refuse fields that are not known, and values that are not possible, of a bucket."""
    for key, value in body.items():
        if key not in SETTABLE:
            raise invalid(f"Unknown name '{key}': cannot find field.")
        if key in _CHECKS:
            _CHECKS[key](value)


def _check_labels(labels: Any) -> None:
    if not isinstance(labels, dict) or len(labels) > MOST_LABELS:
        raise invalid("Too many labels.")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise invalid(f"Invalid label key '{key}'.")
        if not LABEL_VALUE.fullmatch(str(value)):
            raise invalid(f"Invalid value '{value}' for label '{key}'.")


def _check_soft_delete(policy: Any) -> None:
    only(policy, {"retentionDurationSeconds", "effectiveTime"}, "softDeletePolicy")
    kept = str(policy.get("retentionDurationSeconds", 0))
    if not (kept.isdigit() and (int(kept) == 0 or WEEK <= int(kept) <= LONGEST)):
        raise invalid("Soft delete policy retention duration must be 0 or 7 to 90 days.")


def _check_location(value: Any) -> None:
    name = str(value).lower()
    if name not in PLACES and not REGION.fullmatch(name):
        raise invalid("The specified location constraint is not valid.")


def _check_class(value: Any) -> None:
    if value not in CLASSES:
        raise invalid(f"Invalid argument: storage class '{value}'.")


def _check_access(access: Any) -> None:
    keys = {"bucketPolicyOnly", "uniformBucketLevelAccess", "publicAccessPrevention"}
    only(access, keys, "iamConfiguration")
    if access.get("publicAccessPrevention", "inherited") not in ("enforced", "inherited"):
        raise invalid("Invalid value for publicAccessPrevention.")
    for key in keys - {"publicAccessPrevention"}:
        only(access.get(key, {}), {"enabled", "lockedTime"}, key)


def _check_lifecycle(lifecycle: Any) -> None:
    only(lifecycle, {"rule"}, "lifecycle")
    rules = lifecycle.get("rule", [])
    if not isinstance(rules, list) or len(rules) > MOST_RULES:
        raise invalid(f"A lifecycle has at most {MOST_RULES} rules.")
    for rule in rules:
        only(rule, {"action", "condition"}, "rule")
        action, condition = rule.get("action", {}), rule.get("condition", {})
        only(action, {"type", "storageClass"}, "action")
        only(condition, NUMBERS | LISTS | TIMES | {"isLive"}, "condition")
        _check_rule(action, condition)


def _check_rule(action: Json, condition: Json) -> None:
    kind = action.get("type")
    if kind not in ACTIONS:
        raise invalid(f"Invalid lifecycle action '{kind}'.")
    if not condition:
        raise invalid("A lifecycle rule needs a condition.")
    if kind == "SetStorageClass":
        _check_class(action.get("storageClass"))
    if kind == "AbortIncompleteMultipartUpload" and set(condition) - OF_UPLOADS:
        raise invalid("The condition does not go with AbortIncompleteMultipartUpload.")
    for key, value in condition.items():
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if key in NUMBERS and not is_number:
            raise invalid(f"Invalid value '{value}' for condition '{key}'.")
        if key in LISTS and not isinstance(value, list):
            raise invalid(f"Invalid value '{value}' for condition '{key}'.")


def only(value: Any, known: set[str], what: str) -> None:
    """Refuse what is no object, or has a field that is not known."""
    if not isinstance(value, dict):
        raise invalid(f"Invalid value for {what}.")
    for key in value:
        if key not in known:
            raise invalid(f"Unknown name '{key}' at '{what}': cannot find field.")


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "labels": _check_labels,
    "softDeletePolicy": _check_soft_delete,
    "location": _check_location,
    "storageClass": _check_class,
    "iamConfiguration": _check_access,
    "lifecycle": _check_lifecycle,
}
