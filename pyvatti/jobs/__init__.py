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
from pyvatti.jobs.bounds import read_time
from pyvatti.jobs.names import bucket_prefix, id_names, names_for
from pyvatti.jobs.patches import (
    add_notice,
    created_patch,
    finalizer_patch,
    identity_patch,
    name_marks,
    outbox_patch,
    queue_patch,
    queued_patch,
    release_patch,
    repair_patch,
    restore_patch,
    transition_patch,
    withdrawal_patch,
    witness_patch,
)
from pyvatti.jobs.pods import read_pod
from pyvatti.jobs.reading import read_job, why_not_ours

__all__ = [
    "Unreadable",
    "add_notice",
    "bucket_prefix",
    "created_patch",
    "dump_outbox",
    "dump_transitions",
    "dump_verdict",
    "finalizer_patch",
    "id_names",
    "identity_patch",
    "name_marks",
    "names_for",
    "outbox_patch",
    "parse",
    "queue_patch",
    "queued_patch",
    "read_job",
    "read_pod",
    "read_time",
    "release_patch",
    "repair_patch",
    "restore_patch",
    "transition_patch",
    "why_not_ours",
    "withdrawal_patch",
    "witness_patch",
]
