"""What every test gets: an environment without settings of the service."""

import os

from pyvatti.settings import Settings

if os.environ.get("USE_EXISTING_CLUSTER", "").lower() == "true" and "KUBECONFIG" in os.environ:
    os.environ.setdefault("PYVATTI_TEST_KUBECONFIG", os.environ["KUBECONFIG"])
for name in Settings.model_fields:
    os.environ.pop(name.upper(), None)
