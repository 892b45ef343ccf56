"""DRIVER_POD: what an operator may choose for the driver's pod, and what no choice takes away."""

import json
from typing import Any

import chart_docs
import kubernetes_validate
import pytest
from chart_tools import (
    Manifest,
    RefusedError,
    merged,
    pod_specs,
    rendered,
    scenario,
    service_environment,
)
from rendering_samples import WHOSE, request, settings
from test_settings import refusal

from pyvatti import labels
from pyvatti.driver_pod import RESERVED_DOMAINS, RESERVED_KEYS, DriverPod
from pyvatti.manifests import Renderer
from pyvatti.settings import Settings

TERM = {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}
NEAR = {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"a": "b"}}}
FULL = {
    "runAsUser": 1000660000,
    "runAsGroup": 0,
    "fsGroup": 1000660000,
    "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/driver.json"},
    "labels": {"sidecar.istio.io/inject": "false", "team": "genomes"},
    "annotations": {"linkerd.io/inject": "disabled", "example.org/note": "a: {{ b }} \n'\""},
    "nodeSelector": {"cloud.google.com/gke-nodepool": "drivers"},
    "tolerations": [
        {"key": "dedicated", "value": "genomes", "effect": "NoSchedule"},
        {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]},
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchFields": [
                    {"key": "metadata.name", "operator": "NotIn", "values": ["node-1"]}
                ]}}
            ],
        },
        "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": NEAR}
        ]},
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {**NEAR, "namespaces": ["other"], "namespaceSelector": {}}
        ]},
    },
    "priorityClassName": "drivers",
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "registry"}],
}  # fmt: skip
PLACEMENT = (*("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"),)


def job(value: Any = None) -> Manifest:
    chosen = {} if value is None else {"driver_pod": json.dumps(value)}
    return Renderer(settings(**chosen)).job(request(), WHOSE)


def template(value: Any = None) -> Any:
    return job(value)["spec"]["template"]


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["initContainers"], *pod["containers"]]


def test_everything_that_may_be_chosen_is_in_the_pod_and_kubernetes_takes_it() -> None:
    made = template(FULL)
    pod = made["spec"]

    assert {field: pod[field] for field in PLACEMENT} == {field: FULL[field] for field in PLACEMENT}
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        **{name: FULL[name] for name in ("runAsUser", "runAsGroup", "fsGroup", "seccompProfile")},
    }
    assert {container["imagePullPolicy"] for container in containers(pod)} == {"Always"}
    assert FULL["labels"].items() <= made["metadata"]["labels"].items()
    assert FULL["annotations"].items() <= made["metadata"]["annotations"].items()
    kubernetes_validate.validate(job(FULL), "1.30", strict=True)


def test_what_is_not_chosen_is_not_there() -> None:
    pod = template()["spec"]

    assert not pod.keys() & set(PLACEMENT)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 65532),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert not [one for one in containers(pod) if "imagePullPolicy" in one]


@pytest.mark.parametrize("empty", [None, ""], ids=["null", "empty"])
def test_an_empty_user_is_chosen_by_the_cluster_and_never_root(empty: str | None) -> None:
    pod = template(dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), empty))["spec"]

    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


@pytest.mark.parametrize("chosen", [{}, FULL], ids=["default", "everything chosen"])
def test_no_choice_takes_a_protection_or_a_label_of_ours(chosen: dict[str, Any]) -> None:
    plain, made = template(), template(chosen)

    assert plain["metadata"]["labels"].items() <= made["metadata"]["labels"].items()
    assert plain["metadata"]["annotations"].items() <= made["metadata"]["annotations"].items()
    assert made["spec"]["securityContext"]["runAsNonRoot"] is True
    assert made["spec"]["securityContext"]["runAsUser"] > 0
    assert not made["spec"].keys() & {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}
    for container in containers(made["spec"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_labels_and_selector_of_a_job_are_the_same_whatever_is_chosen() -> None:
    assert job(FULL)["metadata"] == job()["metadata"]


REFUSED = [
    ("{", "DRIVER_POD: must be a JSON object: Expecting property name"),
    ("[]", "DRIVER_POD: Input should be a valid dictionary"),
    ("[" * 100_000, "DRIVER_POD: must be a JSON object of a few levels"),
    ('{"runAsUser": 5, "runAsUser": 6}', "DRIVER_POD: must not hold a key twice"),
    ({"runAsUser": 0}, "DRIVER_POD.runAsUser: Input should be greater than or equal to 1"),
    ({"runAsUser": "1000"}, "DRIVER_POD.runAsUser: Input should be a valid integer"),
    ({"runAsUser": True}, "DRIVER_POD.runAsUser: Input should be a valid integer"),
    ({"fsGroup": 2**31}, "DRIVER_POD.fsGroup: Input should be less than or equal to"),
    ({"run_as_user": 5}, "DRIVER_POD.run_as_user: Extra inputs are not permitted"),
    ({"hostNetwork": True}, "DRIVER_POD.hostNetwork: Extra inputs are not permitted"),
    ({"securityContext": {"privileged": True}}, "DRIVER_POD.securityContext: Extra inputs"),
    ({"seccompProfile": {"type": "Unconfined"}}, "DRIVER_POD.seccompProfile.type: Input should be"),
    ({"seccompProfile": {"type": "Localhost"}}, "DRIVER_POD.seccompProfile: localhostProfile"),
    (
        {"seccompProfile": {"type": "Localhost", "localhostProfile": "../a"}},
        "DRIVER_POD.seccompProfile.localhostProfile: String should match",
    ),
    ({"labels": {"a b": "x"}}, "DRIVER_POD.labels.a b.[key]: must be a key"),
    ({"labels": {"a": "x y"}}, "DRIVER_POD.labels.a: String should match"),
    ({"labels": {f"{'a' * 254}/b": "x"}}, "must be a key such as"),
    ({"annotations": {"a": 1}}, "DRIVER_POD.annotations.a: Input should be a valid string"),
    ({"nodeSelector": {"a": True}}, "DRIVER_POD.nodeSelector.a: Input should be a valid string"),
    ({"tolerations": {}}, "DRIVER_POD.tolerations: Input should be a valid list"),
    ({"tolerations": [{}]}, "DRIVER_POD.tolerations.0: key must be set unless"),
    (
        {"tolerations": [{"operator": "Exists", "value": "x"}]},
        "DRIVER_POD.tolerations.0: value must be empty",
    ),
    (
        {"tolerations": [{"key": "a", "tolerationSeconds": 1}]},
        "DRIVER_POD.tolerations.0: tolerationSeconds needs effect NoExecute",
    ),
    ({"tolerations": [{"key": "a b"}]}, "DRIVER_POD.tolerations.0.key: must be a key"),
    ({"affinity": {"nodeAfinity": {}}}, "DRIVER_POD.affinity.nodeAfinity: Extra inputs"),
    (
        {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}},
        "requiredDuringSchedulingIgnoredDuringExecution.0.topologyKey: Field required",
    ),
    *(
        (
            {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", **rule}]}]
            }}}},
            f"nodeSelectorTerms.0.matchExpressions.0: values must be {said}",
        )
        for rule, said in (
            ({"operator": "In"}, "set where operator is In"),
            ({"operator": "Exists", "values": ["x"]}, "empty where operator is Exists"),
            ({"operator": "Gt", "values": ["x"]}, "one whole number"),
        )
    ),
    ({"priorityClassName": "A"}, "DRIVER_POD.priorityClassName: String should match"),
    ({"imagePullPolicy": "Sometimes"}, "DRIVER_POD.imagePullPolicy: Input should be"),
    ({"imagePullSecrets": ["registry"]}, "DRIVER_POD.imagePullSecrets.0: Input should be"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_wrong_value_is_refused_at_the_start_by_its_field(value: Any, said: str) -> None:
    text = value if isinstance(value, str) else json.dumps(value)

    assert said in refusal(DRIVER_POD=text)


OURS = [
    *RESERVED_KEYS,
    *(f"{domain}/anything" for domain in RESERVED_DOMAINS),
    f"sub.{labels.PREFIX}/job-id",
]
KEYS_OF_OURS = [
    value
    for name, value in vars(labels).items()
    if name.isupper() and isinstance(value, str) and "/" in value
]


@pytest.mark.parametrize("key", sorted({*OURS, *KEYS_OF_OURS}))
@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_keys_of_ours_are_refused_by_the_service_and_by_the_chart(field: str, key: str) -> None:
    with pytest.raises(RefusedError, match=f"driver.pod.{field}: the key {key} belongs"):
        rendered(merged(scenario("default"), {"driver": {"pod": {field: {key: "x"}}}}))
    assert f"DRIVER_POD.{field}.{key}.[key]: this key belongs to" in refusal(
        DRIVER_POD=json.dumps({field: {key: "x"}})
    )


def test_every_field_is_a_value_of_the_chart_with_the_same_default() -> None:
    fields = {field.alias: field for field in DriverPod.model_fields.values()}
    values = chart_docs.defaults()["driver"]["pod"]

    assert values.keys() == fields.keys()
    assert DriverPod.model_validate(values) == DriverPod()


@pytest.mark.parametrize(
    "value", [FULL, {"seccompProfile": {"type": "RuntimeDefault"}}], ids=["everything", "little"]
)
def test_the_chart_passes_on_what_is_chosen(value: dict[str, Any]) -> None:
    items = rendered(merged(scenario("default"), {"driver": {"pod": value}}))
    seen: dict[str, Any] = {key.lower(): text for key, text in service_environment(items).items()}

    assert Settings(**seen).driver_pod.plain() == DriverPod.model_validate(value).plain()


def test_openshift_chooses_the_ids_of_the_service_and_of_its_drivers() -> None:
    items = rendered(scenario("openshift"))
    seen: dict[str, Any] = {key.lower(): text for key, text in service_environment(items).items()}
    renderer = Renderer(Settings(**seen))
    driver = renderer.job(request(), renderer.nowhere())["spec"]["template"]["spec"]

    for spec in (driver, *(spec for _, spec in pod_specs(items))):
        assert not spec["securityContext"].keys() & {"runAsUser", "runAsGroup", "fsGroup"}
        assert spec["securityContext"]["runAsNonRoot"] is True
    assert driver["nodeSelector"] == {"node-role.kubernetes.io/worker": ""}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"runAsUser": 0}, "/driver/pod/runAsUser"),
        ({"seccompProfile": {"type": "Unconfined"}}, "/driver/pod/seccompProfile/type"),
        ({"seccompProfile": {"type": "Localhost"}}, "driver.pod.seccompProfile: localhostProfile"),
        ({"hostNetwork": True}, "hostNetwork"),
        ({"labels": {"a b": "x"}}, "a b"),
        ({"imagePullPolicy": "Sometimes"}, "/driver/pod/imagePullPolicy"),
        ({"tolerations": [{}]}, "driver.pod.tolerations.0: key must be set"),
        (
            {"tolerations": [{"operator": "Exists", "value": "x"}]},
            "driver.pod.tolerations.0: value must be empty",
        ),
        (
            {"tolerations": [{"key": "a", "tolerationSeconds": 1}]},
            "driver.pod.tolerations.0: tolerationSeconds needs",
        ),
    ],
)
def test_the_chart_refuses_a_wrong_value_by_its_name(value: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        rendered(merged(scenario("default"), {"driver": {"pod": value}}))
