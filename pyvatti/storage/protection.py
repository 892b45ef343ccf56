"""What protects a bucket, all of it part of the one create call, and what of it the server kept.

No calls: the properties of a bucket object and nothing else.
"""

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from pyvatti import labels
from pyvatti.models import Owner
from pyvatti.settings import Settings

Purpose: TypeAlias = Literal["work", "results"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the server says of a bucket; `soft_delete_seconds` is None where it says nothing."""

    name: str
    metageneration: int
    labels: dict[str, str]
    soft_delete_seconds: int | None
    is_uniform: bool
    public_access: str
    is_versioned: bool


def expiry_days(settings: Settings, purpose: Purpose) -> int:
    """Give the age in days at which objects expire: never below the longest life of a job."""
    longest = settings.timeout_seconds + settings.deployed_timeout_seconds
    if purpose == "results":
        longest = max(longest, settings.results_retention)
    return max(1, math.ceil(longest / timedelta(days=1)))


def identity(owner: Owner) -> dict[str, str]:
    """Give the labels of a job's bucket."""
    return labels.of_bucket(owner.installation, owner.job_id, owner.job_uid)


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


def read(bucket: Any) -> Seen:
    """Read a bucket as the server gave it; an answer of another shape raises anything here."""
    access = bucket.iam_configuration
    return Seen(
        name=bucket.name,
        metageneration=int(bucket.metageneration),
        labels=dict(bucket.labels),
        soft_delete_seconds=bucket.soft_delete_policy.retention_duration_seconds,
        is_uniform=access.uniform_bucket_level_access_enabled is True,
        public_access=access.public_access_prevention,
        is_versioned=bool(bucket.versioning_enabled),
    )


def deviations(seen: Seen, wanted: dict[str, str]) -> list[str]:
    """Name each protection the server did not keep: an organisation policy may change them."""
    kept = {
        "soft delete is not 0": seen.soft_delete_seconds == 0,
        "uniform access is off": seen.is_uniform,
        "public access prevention is not enforced": seen.public_access == "enforced",
        "versioning is on": not seen.is_versioned,
        "labels differ": wanted.items() <= seen.labels.items(),
    }
    return [problem for problem, is_kept in kept.items() if not is_kept]


def is_ours(seen: Seen, owner: Owner) -> bool:
    """Whether the bucket says that this very job made it."""
    return identity(owner).items() <= seen.labels.items()
