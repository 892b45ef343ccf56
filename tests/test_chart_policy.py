"""The chart's admission policy as it is written; what it decides is seen in test_cluster_policy."""

import json
import re
from typing import Any

import kubernetes_validate
import pytest
from chart_tools import (
    CHART,
    HELM_3,
    HELM_4,
    NAMESPACE,
    Manifest,
    RefusedError,
    helm,
    merged,
    objects_in,
    only,
    rendered,
    scenario,
)

from pyvatti import labels
from pyvatti.launch import EXAMPLE

KINDS = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
TEMPLATE = (
    *("template", "hattivatti", str(CHART), "--namespace", NAMESPACE),
    *("--values", str(CHART / "ci" / "existing-secret-values.yaml")),
    *("--set", "admissionPolicy.enabled=true"),
)


def policed(name: str = "hattivatti", namespace: str = NAMESPACE, **values: Any) -> list[Manifest]:
    """Give the policy and its binding."""
    wanted = {"admissionPolicy": {"enabled": True}}
    change = merged(wanted, values)
    items = rendered(merged(scenario("default"), change), name=name, namespace=namespace)
    return [only(items, kind) for kind in KINDS]


def expressions() -> dict[str, str]:
    """Give every expression by its name or message."""
    spec = policed()[0]["spec"]
    return {item["name"]: item["expression"] for item in spec["variables"]} | {
        item["message"]: item["expression"] for item in spec["validations"]
    }


def test_it_is_off_unless_it_is_asked_for() -> None:
    assert not {item["kind"] for item in rendered(scenario("default"))} & {*KINDS}


@pytest.mark.parametrize("version", ["1.27.0", "1.29.15"])
def test_a_cluster_that_does_not_serve_it_is_refused_in_words(version: str) -> None:
    with pytest.raises(RefusedError, match=r"admissionPolicy\.enabled: needs Kubernetes 1\.30"):
        helm(*TEMPLATE, "--kube-version", version)


@pytest.mark.parametrize("version", ["1.30.0", "1.30.5-gke.1014001", "1.36.2"])
def test_both_helms_render_the_same_valid_objects(version: str) -> None:
    third, fourth = (
        helm(*TEMPLATE, "--kube-version", version, source=source) for source in (HELM_3, HELM_4)
    )

    assert third == fourth
    for kind in KINDS:
        kubernetes_validate.validate(only(objects_in(third), kind), version[:4], strict=True)


def test_no_two_releases_of_a_cluster_share_its_name() -> None:
    names = {
        policed(name, namespace)[0]["metadata"]["name"]
        for name, namespace in (("a", "b"), ("b", "a"), ("a-b", "c"), ("b-c", "a"), ("c", "a-b"))
    }

    assert len(names) == 5
    for policy, binding in (policed(), policed("x" * 53, "n" * 39)):
        assert binding["spec"]["policyName"] == policy["metadata"]["name"]
        assert binding["metadata"]["name"] == policy["metadata"]["name"]
        assert "namespace" not in policy["metadata"] | binding["metadata"]


def test_it_decides_in_its_own_namespace_alone_and_refuses_when_in_doubt() -> None:
    policy, binding = policed(namespace="elsewhere")

    assert policy["spec"]["failurePolicy"] == "Fail"
    assert policy["spec"]["matchConstraints"]["namespaceSelector"] == {
        "matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}
    }
    assert binding["spec"]["validationActions"] == ["Deny"]


def test_jobs_and_pods_may_be_deleted_records_and_secrets_not() -> None:
    rules = policed()[0]["spec"]["matchConstraints"]["resourceRules"]

    assert {name: rule["operations"] for rule in rules for name in rule["resources"]} == {
        "jobs": ["CREATE", "UPDATE"],
        "jobs/status": ["CREATE", "UPDATE"],
        "pods": ["CREATE", "UPDATE"],
        "pods/status": ["CREATE", "UPDATE"],
        "configmaps": ["CREATE", "UPDATE", "DELETE"],
        "secrets": ["CREATE", "UPDATE", "DELETE"],
    }


def test_writers_are_the_service_kubernetes_and_who_is_named() -> None:
    policy, _ = policed(
        serviceAccount={"create": False, "name": "operator"},
        admissionPolicy={"allowed": ["a-second-release", 'odd"\\name']},
    )
    (condition,) = policy["spec"]["matchConditions"]

    written = re.fullmatch(r"!\(request\.userInfo\.username in (\[.*\])\)", condition["expression"])
    assert written is not None
    assert json.loads(written[1]) == [
        f"system:serviceaccount:{NAMESPACE}:operator",
        "system:kube-controller-manager",
        "system:serviceaccount:kube-system:job-controller",
        "system:serviceaccount:kube-system:generic-garbage-collector",
        "system:serviceaccount:kube-system:namespace-controller",
        "a-second-release",
        'odd"\\name',
    ]


def test_it_guards_the_keys_and_names_the_service_uses() -> None:
    written = json.dumps(expressions())
    job_id = EXAMPLE["pipeline_param"]["id"].lower()
    pattern = re.search(r"matches\('([^']+)'\)", expressions()["named"])

    assert pattern is not None
    for name in (job_id, f"{job_id}-transfer", f"{job_id}-record", "intp1", "intp99999999999"):
        assert re.search(pattern[1], name)
    for name in ("intp", "intp1-x", "xintp1", "intp-record", "intp123456789012", "INTP1"):
        assert not re.search(pattern[1], name)
    assert f"'{labels.FINALIZER}'" in written
    assert f"startsWith('{labels.PREFIX}/')" in written
    keys = {
        value for name, value in vars(labels).items() if name.isupper() and "/" in str(value)
    } - {labels.CONTROLLER_UID, labels.KUEUE_QUEUE, labels.KUEUE_JOB_UID}
    guarded = (f"{labels.PREFIX}/", "app.kubernetes.io/")
    assert {key for key in keys if not key.startswith(guarded)} == set()


def test_every_refusal_says_what_to_do_or_who_may() -> None:
    validations = policed()[0]["spec"]["validations"]

    assert {item["reason"] for item in validations} == {"Forbidden"}
    for item in validations:
        assert "pyvatti" in item["message"]


def test_notes_say_that_it_is_cluster_wide() -> None:
    notes = helm("install", *TEMPLATE[1:], "--dry-run=client").partition("NOTES:")[2]

    assert "ValidatingAdmissionPolicy pyvatti.intervene-dev.hattivatti is cluster-wide" in notes
