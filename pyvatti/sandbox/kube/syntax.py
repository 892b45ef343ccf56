"""The syntax of names, labels, annotations and other metadata.

Follows k8s.io/apimachinery pkg/util/validation. Every check gives (field, sentence) pairs.
"""

import re
from collections.abc import Callable
from typing import Any

Causes = list[tuple[str, str]]

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
ANNOTATIONS_BYTES = 262_144
KNOWN_FINALIZERS = ("orphan", "foregroundDeletion", "kubernetes")


def check_subdomain(path: str, value: str) -> Causes:
    """Check a DNS subdomain name of RFC 1123."""
    if len(value) > 253:
        return [(path, f'Invalid value: "{value}": must be no more than 253 characters')]
    if not SUBDOMAIN.fullmatch(value):
        return [
            (
                path,
                (
                    f'Invalid value: "{value}": a lowercase RFC 1123 subdomain must consist of'
                    " lower case alphanumeric characters, '-' or '.', and must start and end with"
                    " an alphanumeric character"
                ),
            )
        ]
    return []


def check_label_name(path: str, value: str) -> Causes:
    """Check a DNS label of RFC 1123."""
    if len(value) > 63:
        return [(path, f'Invalid value: "{value}": must be no more than 63 characters')]
    if not LABEL.fullmatch(value):
        return [
            (
                path,
                (
                    f'Invalid value: "{value}": a lowercase RFC 1123 label must consist of lower'
                    " case alphanumeric characters or '-', and must start and end with an"
                    " alphanumeric character"
                ),
            )
        ]
    return []


def check_segment(path: str, value: str) -> Causes:
    """Check a name that only has to fit into a path."""
    wrong = value in (".", "..") or "/" in value or "%" in value
    return (
        [(path, f"Invalid value: \"{value}\": may not be '.' or '..' or contain '/' or '%'")]
        if wrong
        else []
    )


def check_prefix(check: Callable[[str, str], Causes], path: str, prefix: str) -> Causes:
    """Check a generateName as `check` does a name; only a dash may end it (maskTrailingDash)."""
    masked = prefix
    if len(prefix) > 1 and prefix.endswith("-"):
        # Bytes, as in Kubernetes: half of a character may be left, which is no name
        masked = prefix.encode()[:-2].decode(errors="replace") + "a"
    found = check(path, masked) if prefix else []
    return [(where, text.replace(f'"{masked}"', f'"{prefix}"', 1)) for where, text in found]


def check_qualified(path: str, key: str) -> Causes:
    """Check the key of a label or annotation: `[prefix/]name`."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix or (slash and not prefix):
        return [(path, f'Invalid value: "{key}": a valid key has at most one "/"')]
    if prefix and check_subdomain(path, prefix):
        return [(path, f'Invalid value: "{key}": prefix part must be a DNS subdomain')]
    if len(name) > 63 or not QUALIFIED.fullmatch(name):
        return [
            (
                path,
                (
                    f'Invalid value: "{key}": name part must be no more than 63 characters and'
                    " consist of alphanumeric characters, '-', '_' or '.'"
                ),
            )
        ]
    return []


def check_label_value(path: str, value: str) -> Causes:
    """Check the value of a label."""
    if len(value) > 63:
        return [(path, f'Invalid value: "{value}": must be no more than 63 characters')]
    if value and not QUALIFIED.fullmatch(value):
        return [
            (
                path,
                (
                    f'Invalid value: "{value}": a valid label must be an empty string or consist of'
                    " alphanumeric characters, '-', '_' or '.', and must start and end with an"
                    " alphanumeric character"
                ),
            )
        ]
    return []


def check_labels(path: str, labels: dict[str, str]) -> Causes:
    """Check a map of labels."""
    causes: Causes = []
    for key, value in labels.items():
        causes += check_qualified(path, key) + check_label_value(path, value)
    return causes


def check_annotations(path: str, annotations: dict[str, str]) -> Causes:
    """Check keys and total size of annotations."""
    causes: Causes = []
    for key in annotations:
        causes += check_qualified(path, key.lower())
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > ANNOTATIONS_BYTES:
        causes.append((path, f"Too long: may not be more than {ANNOTATIONS_BYTES} bytes"))
    return causes


def check_metadata(metadata: dict[str, Any]) -> Causes:
    """Check labels, annotations, finalizers and owner references of an object."""
    causes = check_labels("metadata.labels", metadata.get("labels", {}))
    causes += check_annotations("metadata.annotations", metadata.get("annotations", {}))
    for item in metadata.get("finalizers", []):
        causes += check_qualified("metadata.finalizers", item)
        if "/" not in item and item not in KNOWN_FINALIZERS:
            causes.append(
                (
                    "metadata.finalizers",
                    (
                        f'Invalid value: "{item}": name is neither a standard finalizer name nor is'
                        " it fully qualified"
                    ),
                )
            )
    return causes + _check_owners(metadata.get("ownerReferences", []))


def _check_owners(owners: list[dict[str, Any]]) -> Causes:
    causes: Causes = []
    for index, owner in enumerate(owners):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                path = f"metadata.ownerReferences[{index}].{name}"
                causes.append((path, f'Invalid value: "": {name} must not be empty'))
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        causes.append(
            (
                "metadata.ownerReferences",
                "Invalid value: Only one reference can have Controller set to true",
            )
        )
    return causes
