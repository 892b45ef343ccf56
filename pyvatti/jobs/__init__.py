"""PURE: Job and Pod objects read into our values, and our values written back as patches.

No decisions and no calls.
"""

from pyvatti.jobs.annotations import (
    Unreadable,
    dump_outbox,
    dump_transitions,
    dump_verdict,
    parse,
)
from pyvatti.jobs.belonging import (
    is_pod_with_edited_owner,
    why_left_pod_not_ours,
    why_left_secret_not_ours,
    why_pod_not_of,
    why_record_not_ours,
    why_secret_not_of,
)
from pyvatti.jobs.bounds import read_time
from pyvatti.jobs.names import id_names, listing_prefix, names_for
from pyvatti.jobs.patches import (
    add_notice,
    created_patch,
    decided_patch,
    evicted_patch,
    finalizer_patch,
    identity_patch,
    name_marks,
    outbox_patch,
    queue_patch,
    queued_patch,
    release_patch,
    repair_patch,
    restore_patch,
    resumed_patch,
    transition_patch,
    withdrawal_patch,
    witness_patch,
)
from pyvatti.jobs.pods import read_pod
from pyvatti.jobs.reading import JOB_NAME, read_job, why_not_ours
from pyvatti.jobs.workloads import read_workload

__all__ = [
    "JOB_NAME",
    "Unreadable",
    "add_notice",
    "created_patch",
    "decided_patch",
    "dump_outbox",
    "dump_transitions",
    "dump_verdict",
    "evicted_patch",
    "finalizer_patch",
    "id_names",
    "identity_patch",
    "is_pod_with_edited_owner",
    "listing_prefix",
    "name_marks",
    "names_for",
    "outbox_patch",
    "parse",
    "queue_patch",
    "queued_patch",
    "read_job",
    "read_pod",
    "read_time",
    "read_workload",
    "release_patch",
    "repair_patch",
    "restore_patch",
    "resumed_patch",
    "transition_patch",
    "why_left_pod_not_ours",
    "why_left_secret_not_ours",
    "why_not_ours",
    "why_pod_not_of",
    "why_record_not_ours",
    "why_secret_not_of",
    "withdrawal_patch",
    "witness_patch",
]
