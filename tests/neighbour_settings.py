"""Settings for tests of the doors to Seqera and the backend."""

from typing import Any

from pyvatti.rest import Timeouts
from pyvatti.settings import Settings

# For servers that fall silent; an answer that is late for them is an outage as well
QUICK = Timeouts(connect=0.5, read=0.3, total=0.6)
TOWER_TOKEN = "seqera-secret-token"
NOTIFY_TOKEN = "bm90aWZ5OnNlY3JldA=="
SIGNING_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the specification's example


def settings_for(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "namespace": "intervene-dev",
        "api_auth": "none",
        "tower_token": TOWER_TOKEN,
        "tower_workspace": 7,
        "tower_api_url": "http://127.0.0.1:9",
        "globus_domain": "https://globus.example.org",
        "globus_client_id": "client",
        "globus_client_secret": "globus-secret",
        "globus_scopes": "scope",
        "key_handler_token": "key-token",
        "key_handler_password": "key-password",
        "key_handler_url": "https://keys.example.org",
        "gcp_project": "project",
        "gcp_location": "europe-west2",
        "notify_url": "http://127.0.0.1:9",
        "notify_token": NOTIFY_TOKEN,
    }
    return Settings(**(values | changes))
