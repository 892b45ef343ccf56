"""POST a dry run to the service and print its answer; exit 0 only if every manifest was accepted.

Runs in the pod of `helm test`; knows nothing of the package beside it.
"""

# ruff: noqa: INP001, ANN001, ANN201, S310, T201, TID251 - a script for any Python in any image

import json
import os
import sys
import time
import urllib.error
import urllib.request


def ask(path, body=None):
    """Send one request and give (status, text)."""
    headers = {"Content-Type": "application/json"}
    token = os.environ.get("API_TOKENS", "").split(",")[0].strip()
    if token:
        headers["Authorization"] = "Bearer " + token
    request = urllib.request.Request(os.environ["SERVICE_URL"] + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def patiently(path, body=None):
    """Ask again while nobody answers: the Service may not know the new pod yet."""
    for _ in range(20):
        try:
            status, text = ask(path, body)
        except OSError as error:
            status, text = 0, str(error)
        if status not in (0, 502, 503):
            break
        time.sleep(3)
    return status, text


ready, why = patiently("/readyz")
print("GET /readyz:", ready, why)
status, text = patiently("/launch?dry_run=true", os.environ["REQUEST"].encode())
print("POST /launch?dry_run=true:", status)
print(json.dumps(json.loads(text), indent=2) if text.startswith(("{", "[")) else text)
sys.exit(0 if ready == 200 and status in (200, 201) else 1)
