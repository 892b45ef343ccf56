"""PURE: whose a Pod, a Secret or a record is. Each function says why it is not ours, or nothing.

Anybody may write labels, so name, labels and owner must agree; no single one is enough.
"""

from pyvatti import labels
from pyvatti.jobs.names import id_names, names_for
from pyvatti.jobs.reading import JOB_NAME
from pyvatti.models import Installation, Manifest, Names

_STRANGE = "its labels are not this installation's"


def why_pod_not_of(raw: Manifest, names: Names, whose: Installation) -> str:
    """Say why a Pod is not this very Job's; empty where it is.

    Needs `{"metadata": {"name", "labels", "ownerReferences"}}`. A pod that has an owner is its
    owner's whatever its labels say; one without (an Orphan deletion took it) is known by them.
    """
    metadata, marks = raw["metadata"], _labels_of(raw)
    if owners := metadata.get("ownerReferences"):
        return _why_not_owned(owners, names)
    if not labels.is_of(raw, whose):
        return _STRANGE
    is_named = str(metadata["name"]).startswith(f"{names.base}-")
    if marks.get(labels.JOB_ID) != names.base or not is_named:
        return "its name and its label job-id do not agree"
    return "" if marks.get(labels.CONTROLLER_UID) == names.uid else "it is another Job's"


def is_pod_with_edited_owner(raw: Manifest, names: Names, whose: Installation) -> bool:
    """Tell whether all of a Pod but its owner says that it is this very Job's.

    Its owner was edited, or its labels were copied: nobody can tell, so it is named, not touched.
    """
    metadata = {**raw["metadata"], "ownerReferences": None}
    is_driver = _labels_of(raw).get(labels.COMPONENT) == labels.DRIVER
    return is_driver and not why_pod_not_of({**raw, "metadata": metadata}, names, whose)


def why_secret_not_of(raw: Manifest, names: Names, whose: Installation) -> str:
    """Say why a Secret is not this very Job's or an earlier one's of its id; empty where it is.

    Needs `{"metadata": {"name", "labels", "ownerReferences"}}`. One without owner was restored or
    orphaned: this Job has the name, so no other Job of ours can be using it.
    """
    metadata = raw["metadata"]
    if metadata["name"] not in (names.base, names.transfer_secret):
        return "its name is none of the job's"
    if owners := metadata.get("ownerReferences"):
        return _why_not_owned(owners, names)
    if not labels.is_of(raw, whose):
        return _STRANGE
    is_its = _labels_of(raw).get(labels.JOB_ID) == names.base
    return "" if is_its else "its name and its label job-id do not agree"


def why_left_pod_not_ours(raw: Manifest, whose: Installation) -> str:
    """Say why a Pod found by our labels is not of any Job of ours, live or gone."""
    base, uid = _labels_of(raw).get(labels.JOB_ID, ""), labels.owner_uid(raw)
    return _why_left_not_ours(raw, whose) or why_pod_not_of(
        raw, names_for(base, whose.namespace, uid), whose
    )


def why_left_secret_not_ours(raw: Manifest, whose: Installation) -> str:
    """Say why a Secret found by our labels is not of any Job of ours, live or gone."""
    base, uid = _labels_of(raw).get(labels.JOB_ID, ""), labels.owner_uid(raw)
    return _why_left_not_ours(raw, whose) or why_secret_not_of(
        raw, names_for(base, whose.namespace, uid), whose
    )


def why_record_not_ours(raw: Manifest, whose: Installation) -> str:
    """Say why a ConfigMap is no record of ours, by its metadata alone; empty where it is one.

    Needs `{"metadata": {"name", "labels"}}`. What it holds is another question. One of an older
    version, without the Namespace's uid, is ours too: its name in this Namespace says so.
    """
    marks = _labels_of(raw)
    is_ours = labels.is_of(raw, whose) or labels.is_of_before(raw, whose.instance)
    if not is_ours or marks.get(labels.COMPONENT) != labels.RECORD:
        return _STRANGE
    base = marks.get(labels.JOB_ID, "")
    if not JOB_NAME.fullmatch(base) or raw["metadata"]["name"] != id_names(base, "").record:
        return "its name and its label job-id do not agree"
    return "" if marks.get(labels.JOB_UID) else "it does not say which Job it is of"


def _why_left_not_ours(raw: Manifest, whose: Installation) -> str:
    if not labels.is_of(raw, whose):
        return _STRANGE
    if not JOB_NAME.fullmatch(_labels_of(raw).get(labels.JOB_ID, "")):
        return "its label job-id is no job id"
    return "" if labels.owner_uid(raw) else "it does not say which Job it is of"


def _why_not_owned(owners: list[Manifest], names: Names) -> str:
    if any(item.get("kind") == "Job" and item.get("uid") == names.uid for item in owners):
        return ""
    first = owners[0]
    return f"it belongs to {first.get('kind')} {first.get('name')}"


def _labels_of(raw: Manifest) -> Manifest:
    marks: Manifest = raw["metadata"].get("labels") or {}
    return marks
