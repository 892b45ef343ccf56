"""What every test gets: an environment without settings of the service."""

import os

import pytest

from pyvatti.settings import Settings

if os.environ.get("USE_EXISTING_CLUSTER", "").lower() == "true" and "KUBECONFIG" in os.environ:
    os.environ.setdefault("PYVATTI_TEST_KUBECONFIG", os.environ["KUBECONFIG"])
pytest.register_assert_rewrite("neighbours", "neighbour_stage", "stage", "cluster_stage")
for name in Settings.model_fields:
    os.environ.pop(name.upper(), None)
