"""What protects a bucket, all of it part of the one create call, and what of it does not fit.

No calls: the properties of a bucket object and nothing else.
"""

import json
import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from pyvatti.settings import Settings
from pyvatti.storage.reading import Seen

Purpose: TypeAlias = Literal["work", "results"]


def expiry_days(settings: Settings, purpose: Purpose) -> int:
    """Give the age in days at which objects expire: never below the longest life of a job.

    Results are kept for their retention after its end, its graces included: they may be old then.
    """
    longest = settings.timeout_seconds + settings.deployed_timeout_seconds
    if purpose == "results":
        graces = settings.hang_grace + settings.failed_grace + 2 * settings.complete_grace
        longest += graces + settings.results_retention
    return max(1, math.ceil(longest / timedelta(days=1)))


def protect(bucket: Any, wanted: dict[str, str], days: int) -> None:
    """Set labels, life cycle, access, no versions and no soft delete before the create call."""
    # Whole values only: items of labels, lifecycle_rules and soft_delete_policy are copies, and
    # what is assigned to a copy is silently lost.
    bucket.labels = wanted
    bucket.soft_delete_policy.retention_duration_seconds = 0
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.iam_configuration.public_access_prevention = "enforced"
    bucket.versioning_enabled = False
    bucket.add_lifecycle_delete_rule(age=days)
    bucket.add_lifecycle_abort_incomplete_multipart_upload_rule(age=1)


def deviations(seen: Seen, location: str, days: int) -> list[str]:
    """Name each property that is not as we make it: a policy or a person may change them."""
    rules = (
        {"action": {"type": "Delete"}, "condition": {"age": days}},
        {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1}},
    )
    kept = {
        f"location is {seen.location}, not {location.upper()}": seen.location == location.upper(),
        "lifecycle rules are not ours": _spelled(seen.lifecycle) == _spelled(rules),
        "soft delete is not 0": seen.soft_delete_seconds == 0,
        "uniform access is off": seen.is_uniform,
        "public access prevention is not enforced": seen.public_access == "enforced",
        "versioning is on": not seen.is_versioned,
        "a retention policy is set": not seen.is_retained,
        "new objects are put under a hold": not seen.is_held_by_default,
    }
    return [problem for problem, is_kept in kept.items() if not is_kept]


def _spelled(rules: Iterable[dict[str, Any]]) -> list[str]:
    """Spell rules so that their order does not matter."""
    return sorted(json.dumps(rule, sort_keys=True) for rule in rules)
