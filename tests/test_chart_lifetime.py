"""The chart over its lifetime: names side by side, upgrades, replaced pods."""

import functools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chart_tools import (
    EXAMPLES,
    SCENARIOS,
    Manifest,
    identity,
    only,
    rendered,
    scenario,
    values_of,
)

NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
ALL_VALUES = [pytest.param(file, id=file.stem) for file in [*SCENARIOS, *EXAMPLES]]

# What Kubernetes refuses to change (or what would cut off running pods) and this chart promises.
IMMUTABLE: dict[str, tuple[str, ...]] = {
    "Deployment": ("spec", "selector"),
    "RoleBinding": ("roleRef",),
    "Secret": ("type",),
    "Service": ("spec", "selector"),
    "PodDisruptionBudget": ("spec", "selector"),
}


def at(item: Manifest, *path: str) -> Any:
    return functools.reduce(lambda node, key: node[key], path, item)


@pytest.mark.parametrize("name", ["a" * 53, "r", "true", "on", "null", "e1", "x-" * 26 + "y"])
@pytest.mark.parametrize("file", ALL_VALUES)
def test_any_release_name_gives_legal_names_and_labels(file: Path, name: str) -> None:
    for item in rendered(values_of(file), name=name):
        assert isinstance(item["metadata"]["name"], str), identity(item)
        assert NAME.fullmatch(item["metadata"]["name"]), identity(item)
        for value in item["metadata"].get("labels", {}).values():
            assert isinstance(value, str)
            assert LABEL.fullmatch(value), identity(item)


@pytest.mark.parametrize("file", ALL_VALUES)
def test_two_releases_in_one_namespace_share_no_object(file: Path) -> None:
    values = {**values_of(file), "fullnameOverride": ""}

    first, second = (
        {identity(item) for item in rendered(values, name=name)}
        for name in ("hattivatti", "hattivatti-two")
    )

    assert not first & second


def test_selectors_of_two_releases_and_of_the_driver_do_not_meet() -> None:
    first, second = (rendered(scenario("default"), name=name) for name in ("one", "two"))
    pods = only(second, "Deployment")["spec"]["template"]["metadata"]["labels"]
    test_pod = only(first, "Pod")["metadata"]["labels"]

    for selector in (
        only(first, "Service")["spec"]["selector"],
        only(first, "Deployment")["spec"]["selector"]["matchLabels"],
    ):
        assert not selector.items() <= pods.items()
        assert not selector.items() <= test_pod.items()
        assert "app.kubernetes.io/component" in selector


def test_no_change_of_values_touches_an_immutable_field() -> None:
    seen: dict[tuple[str, str], set[str]] = {}

    for file in [*SCENARIOS, *EXAMPLES]:
        for item in rendered(values_of(file)):
            if item["kind"] in IMMUTABLE:
                field = json.dumps(at(item, *IMMUTABLE[item["kind"]]), sort_keys=True)
                seen.setdefault(identity(item), set()).add(field)

    assert len(seen) >= len(IMMUTABLE)
    assert {key: fields for key, fields in seen.items() if len(fields) != 1} == {}


def test_immutable_fields_are_those_of_the_first_version() -> None:
    items = rendered(scenario("high-availability"))
    labels = {
        "app.kubernetes.io/name": "hattivatti",
        "app.kubernetes.io/instance": "hattivatti",
        "app.kubernetes.io/component": "service",
    }

    assert at(only(items, "Deployment"), "spec", "selector") == {"matchLabels": labels}
    assert at(only(items, "Service"), "spec", "selector") == labels
    assert at(only(items, "RoleBinding"), "roleRef") == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": "hattivatti",
    }
    assert "clusterIP" not in at(only(items, "Service"), "spec")


def test_update_keeps_every_pod_until_its_successor_is_ready() -> None:
    spec = only(rendered(scenario("high-availability")), "Deployment")["spec"]
    (container,) = spec["template"]["spec"]["containers"]

    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert container["lifecycle"]["preStop"]["exec"]["command"][-1].endswith("time.sleep(5)")
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 5


def test_disruption_budget_exists_only_with_more_than_one_replica() -> None:
    counts = {
        replicas: Counter(
            item["kind"] for item in rendered({**scenario("default"), "replicas": replicas})
        )["PodDisruptionBudget"]
        for replicas in (0, 1, 2)
    }

    assert counts == {0: 0, 1: 0, 2: 1}


def test_pods_are_replaced_when_what_they_read_changes_and_only_then() -> None:
    def template(**change: Any) -> Any:
        return only(rendered({**base, **change}), "Deployment")["spec"]["template"]

    base = scenario("default")
    assert template(replicas=3) == template()
    assert template(config={**base["config"], "logLevel": "debug"}) != template()
    assert template(secrets={**base["secrets"], "towerToken": "other"}) != template()
    assert template(templates={"files": {"a": "1"}}) != template(templates={"files": {"a": "2"}})
