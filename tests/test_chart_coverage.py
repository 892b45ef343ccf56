"""Every value of the chart is used: another value gives other objects."""

from typing import Any

import chart_docs
import pytest
from chart_tools import merged, nested, rendered, scenario

# Values that differ from the default, where a simple change would be refused.
SPECIAL: dict[str, Any] = {
    "image.digest": "sha256:" + "0" * 64,
    "image.pullPolicy": "Always",
    "imagePullSecrets": [{"name": "other"}],
    "config.apiAuth": "token",
    "config.minOverlap": 0.5,
    "config.templatesDir": "/other",
    "config.kubeconfig": "/other",
    "config.maxMemory": "1.GB",
    "config.maxSpotAttempts": 2,
    "config.maxTime": "1.h",
    "config.driverMemory": "1Gi",
    "config.driverStorage": "1Gi",
    "config.driverCpu": "2",
    "config.nextflowVersion": "1.2.3",
    "config.kubernetesVersion": "1.28",
    "config.batchServiceAccount": "a@b",
    "config.notifyStatusPath": "/{id}",
    "config.logFormat": "json",
    "config.logLevel": "debug",
    "config.host": "::",
    "config.renewDeadline": 11,
    "config.fusion": True,
    "config.globusDomain": "https://other",
    "config.storageEmulatorHost": "https://other",
    "secretRefs": {"towerToken": {"name": "other"}},
    "google.credentials.key": "other",
    "authorities.key": "other",
    "templates.files": {"other": "x"},
    "templates.items": [{"key": "other", "path": "other"}],
    "service.type": "NodePort",
    "service.ipFamilyPolicy": "PreferDualStack",
    "service.ipFamilies": ["IPv6"],
    "driver.pod.seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"},
    "driver.pod.tolerations": [{"operator": "Exists"}],
    "driver.pod.affinity": {"podAffinity": {}},
    "driver.pod.imagePullPolicy": "Always",
    "driver.pod.imagePullSecrets": [{"name": "other"}],
    "securityContext.seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"},
    "networkPolicy.driver.extra": [{"ports": [{"port": 1}]}],
    "httpRoute.parentRefs": [{"name": "other"}],
    "httpRoute.hostnames": ["other"],
    "networkPolicy.egress.extra": [{"ports": [{"port": 1}]}],
    "metrics.serviceMonitor.interval": "1s",
    "resourceQuota.hard": {"pods": 1},
    "limitRange.limits": [{"type": "Pod", "max": {"cpu": 1}}],
    "resources.requests": {"cpu": 1},
    "resources.limits": {"cpu": 1},
    "affinity": {"podAffinity": {}},
    "tolerations": [{"operator": "Exists"}],
    "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "a", "whenUnsatisfiable": "b"}],
    "extraEnv": [{"name": "OTHER", "value": "x"}],
    "extraVolumes": [{"name": "other", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "other", "mountPath": "/other"}],
    "admissionPolicy.allowed": ["other"],
    "admissionPolicy.actions": ["Audit"],
}
# What must be set for the value to matter.
CONTEXT: dict[str, dict[str, Any]] = {
    "ingress": {
        "config": {"apiAuth": "token"},
        "ingress": {"enabled": True, "host": "a", "tlsSecret": "b"},
    },
    "httpRoute": {
        "config": {"apiAuth": "token"},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]},
    },
    "google": {"google": {"credentials": {"existingSecret": "a"}}},
    "authorities": {"authorities": {"existingConfigMap": "a"}},
    "templates.items": {"templates": {"existingConfigMap": "a"}},
    "secrets": {"config": {"apiAuth": "token"}},
    "podDisruptionBudget": {"replicas": 2},
    "metrics": {
        "metrics": {
            name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard")
        }
    },
    "resourceQuota": {"resourceQuota": {"enabled": True, "hard": {"pods": 2}}},
    "limitRange": {"limitRange": {"enabled": True, "limits": [{"type": "Container"}]}},
    "config.fusion": {"config": {"wave": True}},
    "service.type": {"config": {"apiAuth": "token"}},
    "serviceAccount.create": {"serviceAccount": {"name": "a"}},
    "driver.serviceAccount.create": {"driver": {"serviceAccount": {"name": "b"}}},
    "extraVolumeMounts": {"extraVolumes": [{"name": "other", "emptyDir": {}}]},
    "admissionPolicy": {"admissionPolicy": {"enabled": True}},
    "existingSecret": {"secrets": {"towerToken": ""}},
}


def other_value(path: str, default: Any) -> Any:
    if path in SPECIAL:
        return SPECIAL[path]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1
    if isinstance(default, str):
        return "https://other" if "rl" in path.rpartition(".")[2][-2:] else "other"
    if isinstance(default, list):
        numbers = default and isinstance(default[0], int)
        return [1] if numbers else [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    return {"other": "x"}


LEAVES = list(chart_docs.leaves(chart_docs.defaults(), set(chart_docs.sentences())))


@pytest.mark.parametrize("path", LEAVES)
def test_every_value_changes_something(path: str) -> None:
    base = merged(scenario("default"), {"secrets": {"apiTokens": "x"}, "existingSecret": "y"})
    for where, needed in CONTEXT.items():
        base = merged(base, needed) if path.startswith(where) else base
    default = chart_docs.value_at(merged(chart_docs.defaults(), base), path)
    change = nested(path, other_value(path, default))

    assert rendered(merged(base, change)) != rendered(base)
