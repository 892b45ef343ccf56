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
