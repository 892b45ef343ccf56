"""Every label, annotation and finalizer key pyvatti writes or reads, spelled once.

No logic beyond selectors and ownership. Limits: a label value has at most 63 characters, all
annotations of one object together 256 KiB (Kubernetes API conventions).
"""

from collections.abc import Mapping
from typing import Any

from pyvatti.models import Installation

PREFIX = "hattivatti.geneticscores.org"

# Recommended labels (kubernetes.io/docs/concepts/overview/working-with-objects/common-labels)
NAME = "app.kubernetes.io/name"
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

# Our own labels. The instance has a key of its own: tools that follow a release's objects by
# app.kubernetes.io/instance (Argo CD) would delete what no chart lists.
INSTANCE = f"{PREFIX}/instance"
NAMESPACE_UID = f"{PREFIX}/namespace-uid"
JOB_ID = f"{PREFIX}/job-id"
JOB_UID = f"{PREFIX}/job-uid"
STATE = f"{PREFIX}/state"

INSTANCE_BEFORE = "app.kubernetes.io/instance"  # on run-time objects of older versions

FINALIZER = f"{PREFIX}/cleanup"

# Annotations on the Job. JSON values are written by pyvatti.jobs alone. The names of run and
# buckets are there for people: they are derived, never read.
REQUEST_HASH = f"{PREFIX}/request-hash"
RUN_NAME = f"{PREFIX}/run-name"
WORK_BUCKET = f"{PREFIX}/work-bucket"
RESULTS_BUCKET = f"{PREFIX}/results-bucket"
TRANSITIONS = f"{PREFIX}/transitions"
OUTBOX = f"{PREFIX}/outbox"
VERDICT = f"{PREFIX}/verdict"
WITNESS = f"{PREFIX}/witness"
ATTEMPT = f"{PREFIX}/attempt"
ACCEPT = f"{PREFIX}/accept"  # a nonce: which request made the Job, so that only it takes it back
WITHDRAWN = f"{PREFIX}/withdrawn"

# Values of WITHDRAWN
IN_DOUBT = "true"  # whoever finds that the accept was completed takes the mark back
DECIDED = "decided"  # never taken back

# Annotations on the record, so that lists need no content: when its job was accepted, which
# events the backend never took, and what was not seen to be gone
ACCEPTED_AT = f"{PREFIX}/accepted-at"
LOST_EVENTS = f"{PREFIX}/lost-events"
REMAINS = f"{PREFIX}/remains"
# Who tells the record's lost events again, and since when
REDELIVERY = f"{PREFIX}/redelivery"

# Labels of buckets: Cloud Storage allows neither "/" nor "." in a key.
BUCKET_MANAGED_BY = "managed-by"
BUCKET_INSTANCE = "instance"
BUCKET_NAMESPACE_UID = "namespace-uid"
BUCKET_JOB_ID = "job-id"
BUCKET_JOB_UID = "job-uid"
BUCKET_KEPT_UNTIL = "kept-until"  # Unix seconds: earlier deleted objects can be restored so long

# Foreign keys
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE_JOB_UID = "kueue.x-k8s.io/job-uid"
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


def identity(installation: Installation, component: str) -> dict[str, str]:
    """Give the labels that say which installation an object of one component belongs to."""
    return {
        MANAGED_BY: MANAGER,
        INSTANCE: installation.instance,
        NAMESPACE_UID: installation.namespace_uid,
        COMPONENT: component,
    }


def of_bucket(installation: Installation, job_id: str, job_uid: str) -> dict[str, str]:
    """Give the labels of a job's buckets and cloud resources, which allow lower case alone."""
    return {
        BUCKET_MANAGED_BY: MANAGER,
        BUCKET_INSTANCE: installation.instance,
        BUCKET_NAMESPACE_UID: installation.namespace_uid,
        BUCKET_JOB_ID: job_id,
        BUCKET_JOB_UID: job_uid,
    }


def is_of(manifest: Mapping[str, Any], installation: Installation) -> bool:
    """Tell whether an object says that it is ours: of this service in this very Namespace.

    Needs `{"metadata": {"labels"}}`, which may be absent. Anybody may write labels: whoever acts
    on an object also compares its name and content.
    """
    marks = manifest["metadata"].get("labels") or {}
    return (
        marks.get(MANAGED_BY) == MANAGER
        and marks.get(INSTANCE) == installation.instance
        and marks.get(NAMESPACE_UID) == installation.namespace_uid
    )


def selector(instance: str, component: str) -> str:
    """Give the label selector of what says that it belongs to a service of this name.

    It also finds objects that were copied or restored from another Namespace: `is_of` tells them
    apart, so that they can be named instead of being overlooked.
    """
    return f"{MANAGED_BY}={MANAGER},{INSTANCE}={instance},{COMPONENT}={component}"


def is_of_before(manifest: Mapping[str, Any], instance: str) -> bool:
    """Tell whether an object is one of an older version, which knew no uid of the Namespace."""
    marks = manifest["metadata"].get("labels") or {}
    return (
        marks.get(MANAGED_BY) == MANAGER
        and marks.get(INSTANCE_BEFORE) == instance
        and NAMESPACE_UID not in marks
    )


def selector_of_before(instance: str, component: str) -> str:
    """Give the label selector of what an older version of this service made."""
    own = f"{MANAGED_BY}={MANAGER},{INSTANCE_BEFORE}={instance},{COMPONENT}={component}"
    return f"{own},!{NAMESPACE_UID}"
