"""Every label, annotation and finalizer key pyvatti writes or reads, spelled once.

No logic beyond selectors and ownership. Limits: a label value has at most 63 characters, all
annotations of one object together 256 KiB (Kubernetes API conventions).
"""

from collections.abc import Mapping
from typing import Any

PREFIX = "hattivatti.geneticscores.org"

# Recommended labels (kubernetes.io/docs/concepts/overview/working-with-objects/common-labels)
NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
PART_OF = "app.kubernetes.io/part-of"
MANAGED_BY = "app.kubernetes.io/managed-by"
VERSION = "app.kubernetes.io/version"

MANAGER = "pyvatti"
APPLICATION = "pgsc-calc"
PROJECT = "hattivatti"

# Values of COMPONENT
DRIVER = "driver"
TRANSFER = "transfer"
RECORD = "record"

# Containers of the driver pod
INIT_CONTAINER = "transfer"
MAIN_CONTAINER = "calculation"

# Our own labels
JOB_ID = f"{PREFIX}/job-id"
JOB_UID = f"{PREFIX}/job-uid"
STATE = f"{PREFIX}/state"

FINALIZER = f"{PREFIX}/cleanup"

# Annotations on the Job. JSON values are written by pyvatti.jobs alone.
REQUEST_HASH = f"{PREFIX}/request-hash"
RUN_NAME = f"{PREFIX}/run-name"
WORK_BUCKET = f"{PREFIX}/work-bucket"
RESULTS_BUCKET = f"{PREFIX}/results-bucket"
TRANSITIONS = f"{PREFIX}/transitions"
OUTBOX = f"{PREFIX}/outbox"
VERDICT = f"{PREFIX}/verdict"
WITNESS = f"{PREFIX}/witness"
WITHDRAWN = f"{PREFIX}/withdrawn"

# Annotations on the record, so that lists need no content: when its job was accepted, and which
# events the backend never took
ACCEPTED_AT = f"{PREFIX}/accepted-at"
LOST_EVENTS = f"{PREFIX}/lost-events"

# Labels of buckets: Cloud Storage allows neither "/" nor "." in a key.
BUCKET_MANAGED_BY = "managed-by"
BUCKET_INSTANCE = "instance"
BUCKET_JOB_ID = "job-id"
BUCKET_JOB_UID = "job-uid"

# Foreign keys
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
FOREGROUND = "foregroundDeletion"


def owner_uid(manifest: Mapping[str, Any]) -> str:
    """Give the uid of the Job an object of ours belongs to, also after its owner was stripped.

    Needs `{"metadata": {"ownerReferences": [{"uid"}]}}` or `{"metadata": {"labels": {job-uid}}}`
    or, of a Pod, `{"metadata": {"labels": {controller-uid}}}`.
    """
    metadata = manifest["metadata"]
    marks = metadata.get("labels") or {}
    owners = [owner["uid"] for owner in metadata.get("ownerReferences") or ()]
    return str(owners[0] if owners else marks.get(JOB_UID) or marks.get(CONTROLLER_UID, ""))


def identity(instance: str, component: str) -> dict[str, str]:
    """Give the labels by which we find our objects of one component in one installation."""
    return {MANAGED_BY: MANAGER, INSTANCE: instance, COMPONENT: component}


def is_of(manifest: Mapping[str, Any], instance: str) -> bool:
    """Tell whether an object is one of ours, and of this installation.

    Needs `{"metadata": {"labels"}}`, which may be absent.
    """
    marks = manifest["metadata"].get("labels") or {}
    return marks.get(MANAGED_BY) == MANAGER and marks.get(INSTANCE) == instance


def selector(instance: str, component: str) -> str:
    """Give the label selector of all our objects of one component in one installation."""
    return ",".join(f"{key}={value}" for key, value in identity(instance, component).items())
