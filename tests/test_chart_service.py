"""Chart and code together: routes, probes, metrics, templates and the pod of `helm test`."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from chart_tools import (
    CHART,
    ROOT,
    Manifest,
    granted,
    only,
    rendered,
    rendered_rules,
    scenario,
    service_container,
    service_environment,
)
from fastapi import FastAPI

from pyvatti import labels
from pyvatti.api import make_api
from pyvatti.launch import parse_launch
from pyvatti.lifecycle.permissions import NEEDED
from pyvatti.settings import Settings
from pyvatti.telemetry import Metrics

SCRAPED = {"namespace", "service"}  # labels of the scrape, not of the series
OPERATIONS = ROOT / "docs" / "operations.md"


@asynccontextmanager
async def nothing(_app: FastAPI) -> Any:
    yield


def settings_of(items: list[Manifest]) -> Settings:
    as_text: dict[str, Any] = {k.lower(): v for k, v in service_environment(items).items()}
    return Settings(**as_text)


def test_probes_ask_routes_the_service_has_on_the_port_it_listens_on() -> None:
    items = rendered(scenario("openshift"))
    settings = settings_of(items)
    routes = make_api(settings, nothing).openapi()["paths"]
    probes = [
        service_container(items)[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness")
    ]
    ready = service_container(items)["readinessProbe"]["httpGet"]

    assert {probe["path"] for probe in probes} == {"/healthz"}
    assert ready["path"] == "/readyz"
    assert {"/healthz", "/readyz"} <= routes.keys()
    (port,) = service_container(items)["ports"]
    assert (port["name"], port["containerPort"]) == ("http", settings.port) == ("http", 9000)
    assert {probe["port"] for probe in [*probes, ready]} == {"http"}


def test_paths_open_to_the_outside_and_to_the_scraper_exist() -> None:
    items = rendered(scenario("ingress"))
    routes = make_api(settings_of(items), nothing).openapi()["paths"]

    (rule,) = only(items, "Ingress")["spec"]["rules"]
    assert {path["path"] for path in rule["http"]["paths"]} <= routes.keys()
    (route,) = only(items, "HTTPRoute")["spec"]["rules"]
    assert {match["path"]["value"] for match in route["matches"]} <= routes.keys()
    scraped = only(rendered(scenario("high-availability")), "ServiceMonitor")["spec"]["endpoints"]
    assert {(end["path"], end["port"]) for end in scraped} == {("/metrics", "http")}
    assert "/metrics" in routes


def test_driver_policy_selects_by_the_labels_the_service_writes() -> None:
    policy = only(rendered(scenario("default")), "NetworkPolicy", "hattivatti-driver")
    chosen = policy["spec"]["podSelector"]["matchLabels"]

    written = labels.selector("hattivatti", labels.DRIVER)
    assert ",".join(sorted(f"{key}={value}" for key, value in chosen.items())) == ",".join(
        sorted(written.split(","))
    )


def test_default_network_policy_keeps_driver_pods_away_from_the_api() -> None:
    policy = only(rendered(scenario("default")), "NetworkPolicy", "hattivatti")
    (peer,) = policy["spec"]["ingress"][0]["from"]

    assert peer["podSelector"]["matchExpressions"] == [
        {"key": labels.JOB_ID, "operator": "DoesNotExist"}
    ]


def test_role_grants_exactly_what_the_service_asks_for_at_its_start() -> None:
    asked = {
        (verb, kind.group, f"{kind.plural}/{subresource}" if subresource else kind.plural)
        for kind, subresource, verbs in NEEDED
        for verb in verbs
    }

    assert granted(rendered_rules()) == asked


def series() -> set[str]:
    """Give every series of /metrics by the name Prometheus stores."""
    found = set()
    for family in Metrics().registry.collect():
        found.add(family.name + ("_total" if family.type == "counter" else ""))
        parts = ("bucket", "count", "sum") if family.type == "histogram" else ()
        found |= {f"{family.name}_{part}" for part in parts}
    return found


def test_every_alert_asks_for_series_the_service_has() -> None:
    rule = only(rendered(scenario("high-availability")), "PrometheusRule")
    alerts = rule["spec"]["groups"][0]["rules"]

    assert len(alerts) == len({alert["alert"] for alert in alerts}) >= 8
    for alert in alerts:
        names = set(re.findall(r"\bpyvatti_\w+", alert["expr"]))
        assert names, alert["alert"]
        assert names <= series(), alert["alert"]
        assert 'namespace="intervene-dev",service="hattivatti"' in alert["expr"]
        assert alert["annotations"]["runbook_url"].endswith("#" + alert["alert"].lower())


MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
MATCHES: dict[str, Callable[[str, str], bool]] = {
    "=": lambda value, wanted: value == wanted,
    "!=": lambda value, wanted: value != wanted,
    "=~": lambda value, wanted: re.fullmatch(wanted, value) is not None,
    "!~": lambda value, wanted: re.fullmatch(wanted, value) is None,
}


def test_every_label_an_alert_looks_for_is_there_from_the_start() -> None:
    samples = [item for family in Metrics().registry.collect() for item in family.samples]
    rule = only(rendered(scenario("high-availability")), "PrometheusRule")

    looked_for = [
        (name, [found for found in MATCHER.findall(labels) if found[0] not in SCRAPED])
        for alert in rule["spec"]["groups"][0]["rules"]
        for name, labels in re.findall(r"\b(pyvatti_\w+){([^}]*)}", alert["expr"])
    ]

    assert len([matchers for _, matchers in looked_for if matchers]) >= 3
    for name, matchers in looked_for:
        assert not matchers or any(
            item.name == name
            and all(MATCHES[how](item.labels[label], wanted) for label, how, wanted in matchers)
            for item in samples
        ), (name, matchers)


def test_every_alert_has_its_section_in_the_runbook() -> None:
    rule = only(rendered(scenario("high-availability")), "PrometheusRule")
    headings = set(re.findall(r"^#+ `?(\w+)`?$", OPERATIONS.read_text(), re.MULTILINE))

    assert {alert["alert"] for alert in rule["spec"]["groups"][0]["rules"]} <= headings


def test_the_dashboard_shows_the_series_the_service_has_and_no_others() -> None:
    stored = only(rendered(scenario("high-availability")), "ConfigMap", "hattivatti-dashboard")
    dashboard = json.loads(stored["data"]["hattivatti.json"])

    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\bpyvatti_\w+", target["expr"])
    }
    assert shown <= series()
    ours = {name for name in series() if name.startswith("pyvatti_")}
    assert families(ours) - families(shown) == {"pyvatti_build_info"}


def families(names: set[str]) -> set[str]:
    return {re.sub("_(bucket|count|sum|total)$", "", name) for name in names}


def test_documented_templates_exist() -> None:
    named = re.findall(r"path: (\S+\.j2)", (CHART / "README.md").read_text())
    shown = re.findall(r"^    (\S+\.j2): \|", (CHART / "README.md").read_text(), re.MULTILINE)

    assert named
    assert shown
    assert [
        path for path in [*named, *shown] if not (ROOT / "templates" / path.strip("}")).is_file()
    ] == []


class Answering(BaseHTTPRequestHandler):
    """Answers as the service would to the pod of `helm test`."""

    launch_status = 200
    seen: list[tuple[str, str, str, bytes]]

    def _note(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "")
        self.seen.append((self.command, self.path, token, body))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        self._note()
        self._answer(200, '{"status": "ok"}')

    def do_POST(self) -> None:
        self._note()
        self._answer(self.launch_status, '{"detail": "as told"}')

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""


@contextmanager
def listening(status: int) -> Iterator[tuple[str, list[tuple[str, str, str, bytes]]]]:
    class Told(Answering):
        launch_status = status
        seen: list[tuple[str, str, str, bytes]] = []  # noqa: RUF012 - one per class is meant

    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", Told.seen
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(200, 0, id="accepted"),
        pytest.param(422, 1, id="refused"),
        pytest.param(500, 1, id="broken"),
    ],
)
def test_helm_test_posts_a_dry_run_of_a_request_the_service_understands(
    status: int, code: int
) -> None:
    pod = only(rendered(scenario("secret-refs")), "Pod")["spec"]["containers"][0]
    given = {entry["name"]: entry.get("value", "first,second") for entry in pod["env"]}
    _, option = pod["command"]

    with listening(status) as (url, seen):
        done = subprocess.run(
            [sys.executable, option, *pod["args"]],
            env={**given, "SERVICE_URL": url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == code, done.stderr
    assert [(method, path, token) for method, path, token, _ in seen] == [
        ("GET", "/readyz", "Bearer first"),
        ("POST", "/launch?dry_run=true", "Bearer first"),
    ]
    assert parse_launch(seen[-1][3]).job_id == "INTP00000000000"
    assert f"POST /launch?dry_run=true: {status}" in done.stdout


def test_helm_test_asks_the_service_of_its_own_release() -> None:
    pod = only(rendered(scenario("ingress"), name="other"), "Pod")["spec"]["containers"][0]
    given = {entry["name"]: entry.get("value") for entry in pod["env"]}

    assert given["SERVICE_URL"] == "http://other:8000"
    assert pod["image"] == service_container(rendered(scenario("ingress")))["image"]
