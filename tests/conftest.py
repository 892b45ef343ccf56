"""What every test gets: an environment without settings of the service."""

import os

import pytest
from hypothesis import HealthCheck, settings

from pyvatti.settings import Settings

if os.environ.get("USE_EXISTING_CLUSTER", "").lower() == "true" and "KUBECONFIG" in os.environ:
    os.environ.setdefault("PYVATTI_TEST_KUBECONFIG", os.environ["KUBECONFIG"])
# How long an example takes says how busy the machine is
settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy machine")
pytest.register_assert_rewrite("neighbours", "neighbour_stage", "stage", "cluster_stage")
for name in Settings.model_fields:
    os.environ.pop(name.upper(), None)

# Begun first, so that no process is left alone with one of them at the end
LONGEST = (
    "test_neighbours_kubernetes",
    "test_neighbours_storage",
    "test_neighbours_backend",
    "test_neighbours_seqera",
    "test_stories",
    "test_chaos",
    "test_replicas",
    "test_kube_conformance",
    "test_chart_values",
    "test_rendering_groovy",
    "test_permissions",
    "test_sweeper",
    "test_lost_jobs",
    "test_api",
    "test_telemetry",
    "test_cli_processes",
    "test_outbox",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest before the others."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))
