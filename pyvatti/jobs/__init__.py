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
from pyvatti.jobs.names import names_for, run_name
from pyvatti.jobs.patches import (
    add_notice,
    created_patch,
    finalizer_patch,
    identity_patch,
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
from pyvatti.jobs.reading import read_job

__all__ = [
    "Unreadable",
    "add_notice",
    "created_patch",
    "dump_outbox",
    "dump_transitions",
    "dump_verdict",
    "finalizer_patch",
    "identity_patch",
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
    "run_name",
    "transition_patch",
    "withdrawal_patch",
    "witness_patch",
]
