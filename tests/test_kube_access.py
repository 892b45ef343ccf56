"""How the tests get into a real cluster and out of it again: kubeconfigs and clean-up."""

import stat
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from kube_access import read_kubeconfig
from kube_cluster import Cluster

pytest_plugins = ("kube_fixtures",)

PLUGIN = """#!/bin/sh
case "$KUBERNETES_EXEC_INFO" in *ExecCredential*) ;; *) exit 1 ;; esac
echo '{"kind": "ExecCredential", "status": {"token": "'$PREFIX-$1'"}}'
"""


def write(folder: Path, user: dict[str, Any], **target: Any) -> Path:
    """Write a kubeconfig of two contexts, of which the second one is meant."""
    server = {"server": "https://127.0.0.1:6443/", **target}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "other",
        "contexts": [
            {"name": "other", "context": {"cluster": "c", "user": "other"}},
            {"name": "meant", "context": {"cluster": "c", "user": "meant", "namespace": "n"}},
        ],
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "other", "user": {"token": "other"}}, {"name": "meant", "user": user}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize(
    ("user", "header"),
    [
        pytest.param({"token": "t0"}, "Bearer t0", id="token"),
        pytest.param({"tokenFile": "token"}, "Bearer t1", id="file beside the kubeconfig"),
        pytest.param({"username": "a", "password": "b"}, "Basic YTpi", id="password"),
    ],
)
def test_context_and_its_credentials_are_taken(tmp_path: Path, user: dict[str, Any], header: str):
    (tmp_path / "token").write_text("t1\n")
    path = write(tmp_path, user, **{"insecure-skip-tls-verify": True})

    assert read_kubeconfig(path).headers == {"Authorization": "Bearer other"}
    access = read_kubeconfig(path, "meant")

    assert access.url == "https://127.0.0.1:6443"
    assert access.headers == {"Authorization": header}
    assert access.ssl is not None
    assert not access.ssl.check_hostname


def test_exec_plugin_is_run_as_kubectl_runs_it(tmp_path: Path):
    plugin = tmp_path / "plugin"
    plugin.write_text(PLUGIN)
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(plugin),
            "args": ["token"],
            "env": [{"name": "PREFIX", "value": "said"}],
            "interactiveMode": "Never",
        }
    }

    access = read_kubeconfig(write(tmp_path, user), "meant")

    assert access.headers == {"Authorization": "Bearer said-token"}


def test_client_certificate_is_shown_by_us_and_not_by_a_stranger(tmp_path: Path):
    authority = trustme.CA()
    pair = authority.issue_cert("someone@example.org")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "client.crt")
    pair.private_key_pem.write_to_path(tmp_path / "client.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    user = {"client-certificate": "client.crt", "client-key": "client.key"}

    access = read_kubeconfig(write(tmp_path, user, **{"certificate-authority": "ca.crt"}), "meant")

    assert access.headers == {}
    assert access.ssl is not None
    assert access.bare_ssl is not None
    assert len(access.ssl.get_ca_certs()) == len(access.bare_ssl.get_ca_certs()) == 1


@pytest.mark.cluster
@pytest.mark.needs("job-controller", "gc")
async def test_clean_up_lets_go_what_a_failed_story_left(cluster: Cluster):
    template = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}
    left = {
        "metadata": {"name": "left", "finalizers": ["nobody.test/serves"]},
        "spec": {"suspend": True, "template": {"spec": template}},
    }
    space = await cluster.space()
    paths = [cluster.path("batch/v1", "jobs", "left", ns=name) for name in ("", space)]
    for path in paths:
        assert (await cluster.post(path.rpartition("/")[0], left)).status == 201

    await cluster.clean()

    for path in (*paths, f"/api/v1/namespaces/{space}"):
        await cluster.until_gone(path)
