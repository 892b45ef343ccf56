"""The chart as Kubernetes and an operator see it: valid, secure, named safely, upgradable."""

import json
import re
import tarfile
from pathlib import Path

import chart_docs
import kubernetes_validate
import pytest
from chart_tools import (
    CHART,
    EXAMPLES,
    HELM_3,
    HELM_4,
    NAMESPACE,
    SCENARIOS,
    RefusedError,
    Source,
    granted,
    helm,
    identity,
    objects_in,
    only,
    permission_table,
    pod_specs,
    rendered,
    rendered_rules,
    scenario,
    values_of,
)

VERSIONS = ["1.27", "1.30", ".".join(kubernetes_validate.latest_version().split(".")[:2])]
# Custom resources, whose schemas live in the clusters that know them.
CUSTOM = {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}
ALL_VALUES = [pytest.param(file, id=file.stem) for file in [*SCENARIOS, *EXAMPLES]]


@pytest.mark.parametrize(
    "source", [pytest.param(HELM_3, id="helm 3"), pytest.param(HELM_4, id="helm 4")]
)
@pytest.mark.parametrize("file", ALL_VALUES)
def test_real_helm_finds_nothing_to_complain_about(file: Path, source: Source) -> None:
    report = helm(
        *("lint", str(CHART), "--strict", "--namespace", NAMESPACE, "--values", str(file)),
        source=source,
    )

    assert "0 chart(s) failed" in report
    assert not re.search(r"\[(WARNING|ERROR)\]", report)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", ALL_VALUES)
def test_real_helm_renders_what_that_kubernetes_accepts(file: Path, version: str) -> None:
    text = helm(
        *("template", "hattivatti", str(CHART), "--namespace", NAMESPACE),
        *("--values", str(file), "--kube-version", version),
    )
    values = values_of(file)
    values["config"]["kubernetesVersion"] = version  # what the in-process Helm cannot be told

    items = objects_in(text)
    assert sorted(items, key=identity) == rendered(values)
    for item in items:
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("file", ALL_VALUES)
def test_helm_3_and_helm_4_render_the_same(file: Path) -> None:
    template = ("template", "hattivatti", str(CHART), "--values", str(file))

    third, fourth = (
        helm(*template, "--namespace", NAMESPACE, "--kube-version", "1.36", source=source)
        for source in (HELM_3, HELM_4)
    )

    assert third == fourth


def test_helm_3_names_an_unknown_value() -> None:
    wrong = ("--set", "config.pollIntervall=60")

    with pytest.raises(RefusedError, match="pollIntervall"):
        helm("lint", str(CHART), *wrong, "--values", str(SCENARIOS[0]), source=HELM_3)


def test_kubernetes_before_1_27_is_refused() -> None:
    with pytest.raises(Exception, match="kubeVersion"):
        helm(
            *("template", "r", str(CHART), "--kube-version", "1.26.0"),
            *("--values", str(CHART / "ci" / "default-values.yaml")),
        )


def test_every_custom_resource_names_a_served_api() -> None:
    items = rendered(scenario("high-availability")) + rendered(scenario("ingress"))

    versions = {item["kind"]: item["apiVersion"] for item in items if item["kind"] in CUSTOM}

    assert versions == {
        "HTTPRoute": "gateway.networking.k8s.io/v1",
        "PrometheusRule": "monitoring.coreos.com/v1",
        "ServiceMonitor": "monitoring.coreos.com/v1",
    }


@pytest.mark.parametrize("file", ALL_VALUES)
def test_no_object_is_cluster_wide_and_each_names_its_namespace(file: Path) -> None:
    for item in rendered(values_of(file), namespace="elsewhere"):
        assert item["metadata"]["namespace"] == "elsewhere", identity(item)
        assert not item["kind"].startswith("Cluster"), identity(item)


@pytest.mark.parametrize("file", ALL_VALUES)
def test_every_pod_is_restricted_and_its_root_read_only(file: Path) -> None:
    for name, spec in pod_specs(rendered(values_of(file))):
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, name
        assert pod.get("runAsUser") != 0, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}, name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_only_the_service_gets_a_kubernetes_token() -> None:
    items = rendered(scenario("default"))

    assert {name: spec["automountServiceAccountToken"] for name, spec in pod_specs(items)} == {
        "hattivatti": True,
        "hattivatti-test": False,
    }
    accounts = [item for item in items if item["kind"] == "ServiceAccount"]
    assert [item["automountServiceAccountToken"] for item in accounts] == [False, False]


def test_driver_has_its_own_account_which_no_role_is_bound_to() -> None:
    items = rendered(scenario("default"))

    assert only(items, "ServiceAccount", "hattivatti-driver")
    assert only(items, "RoleBinding")["subjects"] == [
        {"kind": "ServiceAccount", "name": "hattivatti", "namespace": NAMESPACE}
    ]
    config = only(items, "ConfigMap")["data"]
    assert config["DRIVER_SERVICE_ACCOUNT"] == "hattivatti-driver"


def test_driver_account_outlives_the_release_and_brings_the_pull_secrets() -> None:
    pull = [{"name": "registry"}]
    items = rendered({**scenario("default"), "imagePullSecrets": pull})
    account = only(items, "ServiceAccount", "hattivatti-driver")

    assert account["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert account["imagePullSecrets"] == pull
    assert [spec["imagePullSecrets"] for _, spec in pod_specs(items)] == [pull, pull]
    assert "annotations" not in only(items, "ServiceAccount", "hattivatti")["metadata"]


def test_role_has_exact_verbs_and_only_what_the_service_may_need() -> None:
    rules = rendered_rules()

    assert "*" not in json.dumps(rules)
    verbs = {
        resource: {verb for verb, _, other in granted(rules) if other == resource}
        for _, _, resource in granted(rules)
    }
    assert verbs.keys() == {
        *("jobs", "secrets", "pods", "pods/log", "configmaps", "events", "leases", "namespaces")
    }
    assert verbs["secrets"] == {"get", "list", "create", "patch", "delete"}
    assert verbs["pods/log"] == {"get"}
    assert verbs["namespaces"] == {"get"}
    assert [rule.get("resourceNames") for rule in rules if rule["resources"] == ["namespaces"]] == [
        [NAMESPACE]
    ]


def test_permission_table_names_each_resource_and_verb() -> None:
    table = permission_table(rendered_rules())

    for verb, _, resource in granted(rendered_rules()):
        assert re.search(rf"^\| `{resource}` .*\b{verb}\b", table, re.MULTILINE)


def test_credentials_are_in_the_secret_and_nowhere_else() -> None:
    values = scenario("default")
    values["config"]["apiAuth"] = "token"
    values["secrets"] = {
        key: f"very-secret-{number}" for number, key in enumerate(chart_docs.defaults()["secrets"])
    }

    items = rendered(values)

    secret = only(items, "Secret")
    assert len(secret["data"]) == 7
    others = json.dumps([item for item in items if item is not secret])
    assert "very-secret" not in others
    assert not [text for text in secret["data"].values() if text in others]


def test_chart_makes_no_secret_when_all_credentials_are_references() -> None:
    assert not [item for item in rendered(scenario("existing-secret")) if item["kind"] == "Secret"]


def test_reference_per_key_wins_over_the_existing_secret() -> None:
    (container,) = only(rendered(scenario("secret-refs")), "Deployment")["spec"]["template"][
        "spec"
    ]["containers"]

    sources = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container["env"]}

    # only what the service can do without may be missing in the existing Secret
    assert [name for name, source in sources.items() if source.get("optional")] == [
        "NOTIFY_SIGNING_SECRET"
    ]
    assert {key: sorted([source["name"], source["key"]]) for key, source in sources.items()} == {
        "NOTIFY_SIGNING_SECRET": ["NOTIFY_SIGNING_SECRET", "pyvatti-common"],
        "API_TOKENS": ["API_TOKENS", "pyvatti-callers"],
        "TOWER_TOKEN": ["access-token", "seqera"],
        "GLOBUS_CLIENT_SECRET": ["client.secret", "globus"],
        "KEY_HANDLER_TOKEN": ["KEY_HANDLER_TOKEN", "pyvatti-common"],
        "KEY_HANDLER_PASSWORD": ["KEY_HANDLER_PASSWORD", "pyvatti-common"],
        "NOTIFY_TOKEN": ["NOTIFY_TOKEN", "hattivatti"],
    }


def test_network_policy_opens_the_api_to_the_named_peers_only() -> None:
    policy = only(rendered(scenario("default")), "NetworkPolicy", "hattivatti")["spec"]

    assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == {"http"}
    # Only the Kubernetes API, whose address nobody knows before, has no peers.
    assert [rule["ports"] for rule in policy["egress"] if "to" not in rule] == [
        [{"port": port, "protocol": "TCP"} for port in (443, 6443, 8443, 16443)]
    ]


def test_network_policy_with_emptied_peers_opens_nothing_more() -> None:
    values = scenario("default")
    values["networkPolicy"] = {
        "ingress": {"api": [], "metrics": []},
        "egress": {"dns": [], "external": {"to": []}, "backend": {"to": []}},
    }

    policy = only(rendered(values), "NetworkPolicy", "hattivatti")["spec"]

    (rule,) = policy["ingress"]
    assert "test" in rule["from"][0]["podSelector"]["matchLabels"].values()
    assert len([rule for rule in policy["egress"] if "to" not in rule]) == 1


def test_driver_pods_accept_no_connection() -> None:
    policy = only(rendered(scenario("default")), "NetworkPolicy", "hattivatti-driver")["spec"]

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy


def test_templates_of_the_operator_are_mounted_where_the_service_looks() -> None:
    files = scenario("templates")["templates"]["files"]
    items = rendered(scenario("templates"))
    spec = only(items, "Deployment")["spec"]["template"]["spec"]
    folder = only(items, "ConfigMap", "hattivatti")["data"]["TEMPLATES_DIR"]
    stored = only(items, "ConfigMap", "hattivatti-templates")["data"]

    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "templates")

    assert {item["path"]: stored[item["key"]] for item in volume["configMap"]["items"]} == files
    assert {"name": "templates", "mountPath": folder, "readOnly": True} in spec["containers"][0][
        "volumeMounts"
    ]


def test_package_holds_what_the_templates_read(tmp_path: Path) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))

    (archive,) = tmp_path.glob("hattivatti-*.tgz")
    with tarfile.open(archive) as package:
        names = set(package.getnames())
    assert {
        *("hattivatti/values.schema.json", "hattivatti/dashboards/pyvatti.json"),
        *("hattivatti/files/dry_run.py", "hattivatti/files/request.json", "hattivatti/README.md"),
    } <= names
    assert not [name for name in names if "/ci/" in name]


def test_documents_say_what_the_comments_of_the_values_say() -> None:
    assert (CHART / "README.md").read_text() == chart_docs.readme(), "run: make chart-docs"
    assert (CHART / "values.schema.json").read_text() == chart_docs.schema(), "make chart-docs"


def test_every_value_has_a_sentence() -> None:
    values = chart_docs.defaults()
    said = chart_docs.sentences()

    missing = [path for path in chart_docs.leaves(values, set(said)) if path not in said]

    assert missing == []


@pytest.mark.parametrize("name", ["hattivatti", "r"])
def test_notes_tell_the_first_job_and_what_is_missing(name: str) -> None:
    notes = helm(
        *("install", name, str(CHART), "--dry-run=client", "--namespace", NAMESPACE),
        *("--values", str(CHART / "ci" / "existing-secret-values.yaml")),
    ).partition("NOTES:")[2]

    assert f"service/{name} 8080:80" in notes
    assert "@request.json http://127.0.0.1:8080/launch" in notes
    assert '{{ index .data "API_TOKENS" | base64decode }}' in notes
    assert "Secret hattivatti-secrets must exist with API_TOKENS, GLOBUS_CLIENT_SECRET" in notes
