"""The values: what is refused, what reaches the service, and that the code understands it."""

import base64
import json
import re
from typing import Any

import chart_docs
import kubernetes_validate
import pytest
from chart_strategies import CHARACTERS, schema, values
from chart_tools import (
    CHART,
    RefusedError,
    merged,
    nested,
    only,
    pod_specs,
    rendered,
    scenario,
    service_container,
    service_environment,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic_settings import BaseSettings

from pyvatti import __version__
from pyvatti.api.origin import own_hosts
from pyvatti.settings import Settings

SECRET_SETTINGS = {
    name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
}
# Derived by the chart from the release and from other values.
DERIVED = {"namespace", "driver_service_account", "driver_pod", "extra_ca_file"}
QUICK = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
)


def environment(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def understood(seen: dict[str, str]) -> Settings:
    as_text: dict[str, Any] = {name.lower(): value for name, value in seen.items()}
    return Settings(**as_text)


REFUSED: list[tuple[str, Any, str]] = [
    ("replicaCount", 2, "replicaCount"),
    ("config.pollIntervall", 60, "pollIntervall"),
    ("networkPolicy.egress.dsn", [], "dsn"),
    ("replicas", "two", "/replicas"),
    ("replicas", -1, "/replicas"),
    ("image.pullPolicy", "Sometimes", "/image/pullPolicy"),
    ("image.digest", "sha256:abc", "/image/digest"),
    ("config.apiAuth", "basic", "/config/apiAuth"),
    ("config.minOverlap", 1.5, "/config/minOverlap"),
    ("config.notifyUrl", "ftp://backend", "/config/notifyUrl"),
    ("config.notifyStatusPath", "/status", "/config/notifyStatusPath"),
    ("config.port", 80, "/config/port"),
    ("config.timeoutSeconds", "1h", "/config/timeoutSeconds"),
    ("config.driverMemory", "2Gigs", "/config/driverMemory"),
    ("config.logLevel", "verbose", "/config/logLevel"),
    ("config.towerWorkspace", "my-workspace", "/config/towerWorkspace"),
    ("secrets.towerTokn", "x", "towerTokn"),
    ("secretRefs.towerToken", {"key": "x"}, "/secretRefs/towerToken"),
    ("secretRefs.gcpProject", {"name": "x"}, "gcpProject"),
    ("existingSecret", "Not_A_Name", "/existingSecret"),
    ("templates.files", {"../etc/passwd": "x"}, "../etc/passwd"),
    ("securityContext.runAsUser", 0, "/securityContext/runAsUser"),
    ("podLabels", {"a b": "c"}, "a b"),
    ("service.type", "ExternalName", "/service/type"),
    ("resources.limits", {"memory": "much"}, "/resources/limits/memory"),
    ("extraEnv", [{"name": "GCP_PROJECT", "value": "x"}], "GCP_PROJECT is set by another value"),
    ("extraEnv", [{"name": "KUBECONFIG", "value": "x"}], "KUBECONFIG is set by another value"),
    ("extraEnv", [{"name": "TOWER_TOKEN", "value": "x"}], "TOWER_TOKEN is set by another value"),
    ("config.renewDeadline", 20, "config.leaseDuration > config.renewDeadline"),
    ("config.fusion", True, "config.fusion: needs config.wave"),
    ("drainSeconds", 60, "terminationGracePeriodSeconds"),
    ("config.stopGrace", 565, "terminationGracePeriodSeconds: must be more than config.stopGrace"),
    ("terminationGracePeriodSeconds", 595, "more than config.stopGrace + drainSeconds + 30"),
    ("admissionPolicy", {"enabled": True, "actions": ["Deny", "Warn"]}, "exclude each other"),
    ("admissionPolicy.actions", ["Refuse"], "/admissionPolicy/actions/0"),
    ("admissionPolicy.actions", [], "/admissionPolicy/actions"),
    ("admissionPolicy.allowed", ["a b"], "/admissionPolicy/allowed/0"),
    ("ingress", {"enabled": True, "host": "a.example.org"}, "needs config.apiAuth token"),
    ("ingress.enabled", True, "ingress.host: must be set"),
    ("ingress", {"enabled": True, "host": "a.example.org"}, "ingress.tlsSecret: must be set while"),
    ("config.keyHandlerUrl", "http://keys", "config.keyHandlerUrl: must begin with https://"),
    ("config.globusDomain", "http://globus", "config.globusDomain: must begin with https://"),
    ("config.towerApiUrl", "http://seqera", "config.towerApiUrl: must begin with https://"),
    ("config.allowedHosts", "a:80", "/config/allowedHosts"),
    ("service.type", "LoadBalancer", "service.type: an API that is reachable from outside"),
    ("serviceAccount.create", False, "serviceAccount.name: must be set"),
    ("driver.serviceAccount.create", False, "driver.serviceAccount.name: must be set"),
    ("driver.serviceAccount.name", "hattivatti", "driver.serviceAccount.name: must not be that"),
    ("driver.serviceAccount.name", "a..b", "/driver/serviceAccount/name"),
    ("podLabels", {"Example.org/a": "b"}, "Example.org/a"),
    ("ingress.host", "10.0.0.1", "/ingress/host"),
    ("extraEnv", [{"name": "A", "value": "x"}] * 2, "extraEnv: A is there twice"),
    ("extraVolumes", [{"name": "tmp", "emptyDir": {}}], "extraVolumes: the name tmp is taken"),
    ("extraVolumeMounts", [{"name": "a", "mountPath": "/a"}], "a is not among extraVolumes"),
    (
        "extraVolumeMounts",
        [{"name": "tmp", "mountPath": "/etc/pyvatti/google"}],
        "the path /etc/pyvatti/google is taken",
    ),
    ("extraVolumeMounts", [{"name": "tmp", "mountPath": "a"}], "/extraVolumeMounts/0/mountPath"),
    (
        "resourceQuota",
        {"enabled": True, "hard": {"limits.cpu": "40", "requests.cpu": "40"}},
        "- resourceQuota.hard.limits.cpu: needs the like",
    ),
    ("httpRoute.enabled", True, "httpRoute.parentRefs: must be set"),
    ("resourceQuota.enabled", True, "resourceQuota.hard: must be set"),
    ("limitRange.enabled", True, "limitRange.limits: must be set"),
    ("config.gcpProject", "", "config.gcpProject: must be set"),
    ("secrets.notifyToken", "", "secrets.notifyToken: must be set"),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), [pytest.param(*row, id=f"{row[0]} {row[1]}") for row in REFUSED]
)
def test_wrong_value_is_refused_with_its_name(path: str, value: Any, message: str) -> None:
    change = merged(scenario("default"), nested(path, value))

    with pytest.raises(RefusedError, match=re.escape(message)):
        rendered(change)


def test_quota_is_taken_when_pods_say_what_it_limits() -> None:
    quota = {"enabled": True, "hard": {"limits.cpu": "40", "requests.cpu": "40", "memory": "9Gi"}}
    base = {**scenario("default"), "resourceQuota": quota}

    for change in (
        {"resources": {"limits": {"cpu": 1}}},
        {"limitRange": {"enabled": True, "limits": [{"type": "Container", "default": {"cpu": 1}}]}},
    ):
        assert only(rendered(merged(base, change)), "ResourceQuota")


def test_everything_missing_is_listed_at_once() -> None:
    with pytest.raises(RefusedError) as refused:
        rendered({})

    required = {
        name
        for name, field in Settings.model_fields.items()
        if field.is_required() and name not in DERIVED
    }
    named = re.findall(r"- (?:config|secrets)\.(\w+): must be set", str(refused.value))
    assert {environment(name).lower() for name in named} == required


def test_the_service_may_be_called_by_the_name_of_its_service_whatever_its_instance():
    usual = {"config": {"allowedHosts": "a, b.example.org"}}
    other = {"config": {"allowedHosts": "a, b.example.org", "instance": "other"}}

    plain = understood(service_environment(rendered(merged(scenario("default"), usual))))
    renamed = understood(service_environment(rendered(merged(scenario("default"), other))))

    assert plain.instance in own_hosts(plain)
    assert {plain.instance, f"{plain.instance}.{plain.namespace}.svc"} <= own_hosts(renamed)
    assert {"a", "b.example.org"} <= own_hosts(plain) & own_hosts(renamed)


def test_an_ingress_whose_tls_ends_elsewhere_says_so():
    values = {"config": {"apiAuth": "token"}, "ingress": {"enabled": True, "host": "a.example.org"}}
    base = merged(scenario("default"), values)
    base = merged(base, {"ingress": {"tlsElsewhere": True}, "secrets": {"apiTokens": "x" * 16}})

    made = next(item for item in rendered(base) if item["kind"] == "Ingress")

    assert made["metadata"]["annotations"] == {"hattivatti.geneticscores.org/tls": "elsewhere"}


@pytest.mark.parametrize("name", ["1st", "a.b", "x" * 54])
def test_release_name_no_service_can_have_is_refused(name: str) -> None:
    with pytest.raises(RefusedError, match="name"):
        rendered(scenario("default"), name=name)


@pytest.mark.parametrize("namespace", ["n" * 40, "1st"])
def test_namespace_that_fits_no_bucket_name_is_refused(namespace: str) -> None:
    with pytest.raises(RefusedError, match="bucket and run names begin with it"):
        rendered(scenario("default"), namespace=namespace)


def test_every_setting_is_a_value_and_every_value_a_setting() -> None:
    config = {environment(name).lower() for name in chart_docs.defaults()["config"]}
    secrets = {environment(name).lower() for name in chart_docs.defaults()["secrets"]}

    assert secrets == SECRET_SETTINGS
    assert config == Settings.model_fields.keys() - SECRET_SETTINGS - DERIVED


def test_every_variable_of_the_pod_is_a_setting() -> None:
    own = {name.upper() for name in Settings.model_fields}

    assert service_environment(rendered(scenario("default"))).keys() <= own
    assert service_environment(rendered(scenario("outside-google"))).keys() - own == {
        *("GOOGLE_APPLICATION_CREDENTIALS", "HTTPS_PROXY", "NODE")
    }


def test_defaults_of_the_chart_are_those_of_the_service() -> None:
    seen = service_environment(rendered(scenario("default")))
    required = {
        name.upper() for name, field in Settings.model_fields.items() if field.is_required()
    }
    derived = {"INSTANCE", "DRIVER_SERVICE_ACCOUNT", "KUBERNETES_VERSION"}

    chart = understood(seen).model_dump()
    service = understood({name: seen[name] for name in seen if name in required | derived})

    assert {
        name: (chart[name], default)
        for name, default in service.model_dump().items()
        if chart[name] != default
    } == {}


def test_no_variable_is_set_twice() -> None:
    items = rendered(scenario("outside-google"))
    names = [entry["name"] for entry in service_container(items)["env"]]

    assert len(names) == len(set(names))
    assert not set(names) & only(items, "ConfigMap")["data"].keys()


def test_large_numbers_arrive_as_digits() -> None:
    change = {"config": {"towerWorkspace": 138659136604200, "recordRetentionSeconds": 100000000}}

    seen = service_environment(rendered(merged(scenario("default"), change)))

    assert seen["TOWER_WORKSPACE"] == "138659136604200"
    assert seen["RECORD_RETENTION_SECONDS"] == "100000000"


def test_name_of_the_installation_is_the_lease_and_the_label_of_its_pods() -> None:
    items = rendered(scenario("default"), name="second", namespace="elsewhere")
    seen = understood(service_environment(items))

    assert (seen.namespace, seen.instance) == ("elsewhere", "second")
    driver = only(items, "NetworkPolicy", "second-driver")["spec"]["podSelector"]["matchLabels"]
    assert driver["hattivatti.geneticscores.org/instance"] == seen.instance


def test_version_of_the_chart_is_that_of_the_project() -> None:
    chart = (CHART / "Chart.yaml").read_text()
    image = service_container(rendered(scenario("default")))["image"]

    assert f'appVersion: "{__version__}"' in chart
    assert image.endswith(f":{__version__}")


@given(values())
@QUICK
def test_any_values_the_schema_allows_give_objects_that_are_valid_and_understood(
    chosen: dict[str, Any],
) -> None:
    try:
        items = rendered(chosen)
    except RefusedError as refused:
        assert "This cannot be installed yet:\n  - " in str(refused)  # noqa: PT017 - a refusal with a reason is fine
        return

    for item in items:
        if item["kind"] not in {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}:
            kubernetes_validate.validate(item, "1.30", strict=True)
    own = {name.upper() for name in Settings.model_fields}
    seen = {name: text for name, text in service_environment(items).items() if name in own}
    assert isinstance(understood(seen), BaseSettings)


TEXTS = st.text(CHARACTERS, min_size=1, max_size=30) | st.sampled_from(
    ["{{ .Release.Name }}", "'\"\\", "$(id)", "- a: b", "# x", "true", "1e3", "0x1", "~", "*a", " "]
)


@given(TEXTS, TEXTS, TEXTS)
@QUICK
def test_any_text_arrives_unchanged(plain: str, secret: str, template: str) -> None:
    change = {
        "config": {"globusScopes": plain},
        "secrets": {"keyHandlerPassword": secret},
        "templates": {"files": {"job.yaml.j2": template}},
        "podAnnotations": {"example.org/note": plain},
    }

    items = rendered(merged(scenario("default"), change))

    assert only(items, "ConfigMap", "hattivatti")["data"]["GLOBUS_SCOPES"] == plain
    stored = only(items, "Secret")["data"]["KEY_HANDLER_PASSWORD"]
    assert base64.b64decode(stored).decode() == secret
    assert only(items, "ConfigMap", "hattivatti-templates")["data"] == {"job.yaml.j2": template}
    pod = only(items, "Deployment")["spec"]["template"]["metadata"]
    assert pod["annotations"]["example.org/note"] == plain


def test_schema_is_closed_at_every_level() -> None:
    def open_objects(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        is_open = node.get("type") == "object" and "additionalProperties" not in node
        found = [path] if is_open and "properties" in node else []
        for key, child in node.items():
            found += open_objects(child, f"{path}/{key}")
        return found

    assert open_objects(schema(), "") == []


def test_no_default_looks_like_a_credential() -> None:
    assert set(chart_docs.defaults()["secrets"].values()) == {""}
    assert not re.search(r"(password|token): [^\"{\s]", json.dumps(chart_docs.defaults()))


def test_no_argument_and_no_annotation_carries_a_setting() -> None:
    items = rendered(scenario("default"))

    for _, spec in pod_specs(items):
        for container in spec["containers"]:
            text = json.dumps(container.get("args", [])) + json.dumps(container.get("command", []))
            assert "stand-in" not in text
