"""What the stand-in's API server understands and refuses, where no real server is asked for it."""

from typing import Any

import aiohttp
import pytest

from pyvatti.sandbox.kube import KubeStandIn
from pyvatti.sandbox.kube.access import Access, Attributes
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.protobuf import MAGIC, decode
from pyvatti.sandbox.kube.resources import PODS, ROLEBINDINGS, ROLES
from pyvatti.sandbox.kube.store import Store

NAMESPACE = "intervene-dev"
PODS_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"


def field(number: int, value: bytes | int) -> bytes:
    """Encode one field, as protobuf does for short values."""
    if isinstance(value, int):
        return bytes((number << 3, value))
    return bytes((number << 3 | 2, len(value))) + value


def message(kind: str, raw: bytes) -> bytes:
    about = field(1, b"v1") + field(2, kind.encode())
    return MAGIC + field(1, about) + field(2, raw)


def test_protobuf_becomes_the_object_json_would_say():
    entry = field(1, b"key") + field(2, b"value")
    metadata = field(1, b"made") + field(8, b"") + field(11, entry)

    made = decode(message("Secret", field(1, metadata) + field(2, entry) + field(5, 1)))

    assert made == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "made", "labels": {"key": "value"}},
        "data": {"key": "dmFsdWU="},
        "immutable": True,
    }


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(message("Pod", b""), 415, id="another kind"),
        pytest.param(message("Secret", field(9, b"x")), 415, id="unknown field"),
        pytest.param(message("Secret", field(9, 1)), 415, id="unknown number"),
        pytest.param(message("Secret", field(1, b"x")), 400, id="cut inside"),
        pytest.param(message("Secret", field(1, 1)), 400, id="a number for a message"),
        pytest.param(message("Secret", field(3, b"\xff")), 400, id="no UTF-8"),
        pytest.param(MAGIC + b"\x0a", 400, id="cut"),
        pytest.param(b"", 415, id="nothing"),
    ],
)
def test_protobuf_that_cannot_be_told_whole_is_refused(data: bytes, code: int):
    with pytest.raises(ApiError) as caught:
        decode(data)

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("granted", "asked", "allowed"),
    [
        pytest.param("pods/log", "pods/log", True, id="subresource"),
        pytest.param("*/log", "pods/log", True, id="subresource of everything"),
        pytest.param("*", "pods/log", True, id="everything"),
        pytest.param("pods", "pods/log", False, id="resource alone"),
        pytest.param("pods/*", "pods/log", False, id="no wildcard of Kubernetes"),
        pytest.param("*/log", "pods", False, id="not the resource itself"),
    ],
)
def test_rule_covers_what_kubernetes_lets_it_cover(
    granted: str,
    asked: str,
    allowed: bool,  # noqa: FBT001 - a row
):
    store = Store(NAMESPACE)
    rule = {"apiGroups": [""], "resources": [granted], "verbs": ["get"]}
    store.create(ROLES, NAMESPACE, {"metadata": {"name": "r"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "worker"}],
    }
    store.create(ROLEBINDINGS, NAMESPACE, binding)
    access = Access(store, {"t": "worker"}, enforce=True)

    assert access.allows("worker", Attributes("get", "", asked, NAMESPACE, "a")) is allowed


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PodInitializing", "PodInitializing"),
        ("ErrImagePull", "image can't be pulled"),
        ("ImagePullBackOff", "trying and failing to pull image"),
    ],
)
async def test_log_of_a_waiting_container_is_refused_in_the_kubelets_words(reason: str, words: str):
    waiting: dict[str, Any] = {"name": "main", "state": {"waiting": {"reason": reason}}}
    spec = {"containers": [{"name": "main", "image": "busybox"}]}
    async with KubeStandIn(namespace=NAMESPACE) as kube:
        kube.store.create(PODS, NAMESPACE, {"metadata": {"name": "a"}, "spec": spec})
        kube.store.mutate(
            PODS, NAMESPACE, "a", lambda pod: pod["status"].update(containerStatuses=[waiting])
        )
        connector = aiohttp.TCPConnector(ssl=kube.ssl_context())
        headers = {"Authorization": f"Bearer {kube.token}"}
        async with (
            aiohttp.ClientSession(kube.url, connector=connector, headers=headers) as session,
            session.get(f"{PODS_PATH}/a/log") as answer,
        ):
            told = await answer.json()

    assert (told["code"], told["reason"]) == (400, "BadRequest")
    assert told["message"] == f'container "main" in pod "a" is waiting to start: {words}'
