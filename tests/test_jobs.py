"""What Job and Pod objects say, however they were edited."""

import json
from dataclasses import replace
from typing import Any

import pytest
from builders import NAMES, T0, UID, at, ended, job, running

from pyvatti import labels
from pyvatti.jobs import (
    add_notice,
    finalizer_patch,
    names_for,
    outbox_patch,
    read_job,
    read_pod,
    release_patch,
    repair_patch,
    transition_patch,
    witness_patch,
)
from pyvatti.lifecycle.trimming import merge
from pyvatti.models import Delivery, Event, Notice, State, Verdict

VERDICT = Verdict(state=State.FAILED, reason="TimedOut", message="m", trace_name="m", trace_exit=1)


def raw_job(**changes: Any) -> dict[str, Any]:
    metadata = {
        "name": NAMES.base,
        "namespace": "intervene-dev",
        "uid": UID,
        "resourceVersion": "10",
        "creationTimestamp": "2026-11-23T12:00:00Z",
        "labels": {labels.STATE: "Requested"},
        "annotations": {},
        "finalizers": [labels.FINALIZER],
    }
    return {"metadata": metadata | changes, "spec": {"suspend": True}, "status": {}}


def patched(raw: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Apply a merge patch of ours, as the API server would."""
    metadata = raw["metadata"] | {
        key: value for key, value in patch["metadata"].items() if not isinstance(value, dict)
    }
    for key in ("labels", "annotations"):
        metadata[key] = raw["metadata"].get(key, {}) | patch["metadata"].get(key, {})
    return {**raw, "metadata": metadata, "spec": raw["spec"] | patch.get("spec", {})}


def test_a_transition_comes_back_as_it_was_written():
    before = read_job(raw_job())
    witness = running(main_end=ended(code=3, message="last words"))

    after = read_job(patched(raw_job(), transition_patch(before, VERDICT, at(7), witness)))

    assert after.state is State.FAILED
    assert after.verdict == VERDICT
    assert after.witness == witness
    assert after.transitions == {State.REQUESTED: T0, State.FAILED: at(7)}
    assert after.outbox == (
        Notice(sequence=1, event=Event.FAILED, at=at(7), trace_name="m", trace_exit=1),
    )


def test_release_enters_created_and_unsuspends_in_one_patch():
    patch = release_patch(read_job(raw_job()), at(5))

    assert patch["spec"] == {"suspend": False}
    assert patch["metadata"]["resourceVersion"] == "10"
    assert read_job(patched(raw_job(), patch)).state is State.CREATED


def test_every_patch_of_a_state_carries_the_version_and_the_uid_that_were_read():
    current = job(outbox=(Notice(sequence=1, event=Event.DEPLOYED, at=T0),))

    for patch in (
        transition_patch(current, VERDICT, T0, None),
        witness_patch(current, running()),
        outbox_patch(current, current.outbox[0]),
    ):
        assert patch["metadata"]["resourceVersion"] == "10"
        assert patch["metadata"]["uid"] == UID


def test_only_the_settled_event_changes():
    outbox = tuple(Notice(sequence=n, event=Event.DEPLOYED, at=T0) for n in (1, 2))
    settled = Notice(sequence=1, event=Event.DEPLOYED, at=T0, delivery=Delivery.DELIVERED)

    patch = outbox_patch(job(outbox=outbox), settled)

    after = read_job(patched(raw_job(), patch))
    assert after.outbox == (settled, outbox[1])


def test_letting_go_keeps_the_finalizers_of_others():
    held = job(finalizers=("other.example.org/x", labels.FINALIZER))

    assert finalizer_patch(held)["metadata"]["finalizers"] == ["other.example.org/x"]


@pytest.mark.parametrize(
    ("annotations", "label", "state"),
    [
        pytest.param({}, "Requested", State.REQUESTED, id="new"),
        pytest.param({}, "Succeeded", State.REQUESTED, id="a label never ends a job"),
        pytest.param({}, "Created", State.CREATED, id="transitions lost: the label helps"),
        pytest.param({labels.TRANSITIONS: "{broken"}, "Deployed", State.DEPLOYED, id="broken JSON"),
        pytest.param(
            {labels.TRANSITIONS: json.dumps({"Requested": "2026-11-23T12:00:00Z"})},
            "Deployed",
            State.REQUESTED,
            id="transitions win over an edited label",
        ),
        pytest.param(
            {labels.VERDICT: '{"state": "Failed", "reason": "r", "message": "m"}'},
            "Created",
            State.FAILED,
            id="a terminal verdict stands",
        ),
        pytest.param(
            {labels.OUTBOX: '[{"sequence": "x"}]'}, "nonsense", State.REQUESTED, id="junk"
        ),
        pytest.param(
            {
                labels.TRANSITIONS: "{broken",
                labels.OUTBOX: '[{"sequence": 1, "event": "deployed", "at": "2026-11-23T12:00Z"}]',
            },
            "nonsense",
            State.DEPLOYED,
            id="transitions lost: the outbox knows",
        ),
        pytest.param(
            {
                labels.VERDICT: "[]",
                labels.OUTBOX: '[{"sequence": 1, "event": "failed", "at": "2026-11-23T12:00Z"}]',
            },
            "Created",
            State.FAILED,
            id="verdict lost: the outbox knows",
        ),
    ],
)
def test_state_of_an_edited_job(annotations: dict[str, str], label: str, state: State):
    raw = raw_job(annotations=annotations, labels={labels.STATE: label})

    assert read_job(raw).state is state


@pytest.mark.parametrize("value", [labels.IN_DOUBT, labels.DECIDED, "x", ""])
@pytest.mark.parametrize("state", [State.REQUESTED, State.CREATED, State.DEPLOYED])
def test_an_accepted_job_is_never_read_as_withdrawn(state: State, value: str):
    times = json.dumps({"Requested": "2026-11-23T12:00:00Z", state: "2026-11-23T12:00:01Z"})
    raw = raw_job(annotations={labels.TRANSITIONS: times, labels.WITHDRAWN: value})

    found = read_job(raw)

    assert (found.withdrawn, found.withdrawal_decided) == (False, False)
    assert "withdrawn" in found.edited
    patch = repair_patch(found, {})
    assert patch["metadata"]["annotations"][labels.WITHDRAWN] is None
    mended = {**raw, "metadata": merge(raw["metadata"], patch["metadata"])}
    assert not read_job(mended).edited


def test_a_job_that_was_not_accepted_is_withdrawn_by_its_mark():
    found = read_job(raw_job(annotations={labels.WITHDRAWN: labels.DECIDED}))

    assert (found.withdrawn, found.withdrawal_decided) == (True, True)
    assert not found.edited


def test_names_are_derived_where_the_annotations_were_removed():
    assert read_job(raw_job(annotations=None, labels=None)).names == NAMES


def test_only_a_true_terminal_condition_ends_a_job():
    raw = raw_job()
    raw["status"]["conditions"] = [
        {"type": "Suspended", "status": "False"},
        {"type": "FailureTarget", "status": "True"},
        {"type": "Failed", "status": "False"},
    ]

    assert read_job(raw).ended is None


def test_a_terminal_condition_is_found_behind_others():
    raw = raw_job()
    raw["status"]["conditions"] = [
        {"type": "Suspended", "status": "False"},
        {
            "type": "Failed",
            "status": "True",
            "reason": "DeadlineExceeded",
            "lastTransitionTime": "2026-11-23T12:00:00Z",
        },
    ]

    found = read_job(raw)

    assert (found.ended, found.ended_reason, found.ended_at) == ("Failed", "DeadlineExceeded", T0)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("OOMKilled", "OOMKilled"),
        ("a-b_1", "a-b_1"),
        (None, ""),
        ("", ""),
        ("no jane.doe@x.org", "Unknown"),
        ("x" * 65, "Unknown"),
        ("ä", "Unknown"),
        ("Failed\n", "Unknown"),
        (7, "Unknown"),
    ],
)
def test_a_reason_is_one_word_or_unknown(said: object, word: str):
    ended = {"type": "Failed", "status": "True", "reason": said}
    raw = raw_job() | {"status": {"conditions": [ended]}}

    assert read_job(raw).ended_reason == word


def test_a_container_is_found_by_name_beside_injected_ones():
    raw = {
        "metadata": {"name": "p", "uid": "u", "labels": {labels.CONTROLLER_UID: UID}},
        "status": {
            "phase": "Running",
            "initContainerStatuses": [
                {"name": "istio-init", "state": {"terminated": {"exitCode": 1}}},
                {"name": "transfer", "state": {"terminated": {"exitCode": 0}}},
            ],
            "containerStatuses": [
                {"name": "istio-proxy", "state": {"terminated": {"exitCode": 9}}},
                {
                    "name": "calculation",
                    "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}},
                },
            ],
        },
    }

    pod = read_pod(raw)

    assert pod.init_end is not None
    assert pod.init_end.exit_code == 0
    assert (pod.main_running, pod.main_end, pod.main_started_at) == (True, None, T0)


def test_a_pod_without_any_status_is_pending():
    pod = read_pod({"metadata": {"name": "p", "uid": "u"}, "status": None})

    assert (pod.phase, pod.init_end, pod.main_end, pod.waiting) == ("Pending", None, None, None)


def test_last_words_of_a_container_lose_e_mail_addresses():
    message = "cannot read /user@example.org/Sample-Set: gone"
    state = {"terminated": {"exitCode": 1, "message": message}}
    raw = {
        "metadata": {"name": "p", "uid": "u"},
        "status": {"initContainerStatuses": [{"name": "transfer", "state": state}]},
    }

    end = read_pod(raw).init_end

    assert end is not None
    assert end.message == "cannot read (redacted) gone"


@pytest.mark.parametrize("ends_as", [State.SUCCEEDED, State.FAILED])
def test_an_end_never_gets_the_number_of_a_deployed_that_somebody_broke_out_of_the_outbox(ends_as):
    broken = replace(job(State.DEPLOYED), outbox=())
    verdict = Verdict(state=ends_as, reason="Tested", message="It ended.")

    outbox = add_notice(broken, verdict, at(9))

    assert [(item.sequence, item.event, item.delivery) for item in outbox] == [
        (1, Event.DEPLOYED, Delivery.DROPPED),
        (2, Event(ends_as.lower()), Delivery.PENDING),
    ]


def test_names_of_everything_a_job_makes():
    names = names_for("INTP00000000513", "intervene-dev", UID)

    assert names.base == "intp00000000513"
    assert names.run_name == "intervene-dev-intp00000000513-5a8f1f6e"
    assert names.work_bucket == "intervene-dev-intp00000000513-work-5a8f1f6e"
    assert names.results_bucket == "intervene-dev-intp00000000513-results"
    assert names.transfer_secret == "intp00000000513-transfer"
    assert names.record == "intp00000000513-record"


def test_names_of_the_longest_namespace_fit_63_characters():
    names = names_for("INTP12345678901", "n" * 39, UID)

    assert names.results_bucket == f"{'n' * 39}-intp12345678901-results"
    assert max(map(len, (names.run_name, names.work_bucket, names.results_bucket))) == 63


def test_no_name_begins_with_a_double_hyphen_where_the_namespace_is_cut():
    names = names_for("INTP1", f"{'n' * 32}-more", UID)

    assert names.work_bucket == f"{'n' * 32}-intp1-work-5a8f1f6e"
