"""The NetworkPolicies, read as a network plug-in reads them: who may call what by IPv4 and IPv6."""

import json
import re
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import pytest
from chart_tools import Manifest, merged, only, rendered, scenario, service_environment
from rendering_samples import every_manifest, readable, request

from pyvatti import labels
from pyvatti.manifests import Renderer
from pyvatti.settings import Settings

PUBLIC = ("142.250.187.234", "2a00:1450:4009:81f::200a")
PRIVATE = ("10.0.0.1", "172.16.0.9", "192.168.1.1", "100.64.0.1", "fd00::1", "fe80::1")
METADATA = "169.254.169.254"
POLICIES = ("hattivatti", "hattivatti-driver")


def policy(name: str, items: list[Manifest]) -> Any:
    return only(items, "NetworkPolicy", name)["spec"]


def is_peer(peer: dict[str, Any], address: str) -> bool:
    """Tell whether an address is one of an ipBlock; selectors choose pods, which are none here."""
    block = peer.get("ipBlock")
    if not block:
        return False
    inside = [
        ip_address(address) in ip_network(network)
        for network in (block["cidr"], *block.get("except", ()))
        if ip_network(network).version == ip_address(address).version
    ]
    return inside[:1] == [True] and not any(inside[1:])


def may_call(spec: dict[str, Any], address: str, port: int, protocol: str = "TCP") -> bool:
    """Decide as Kubernetes says: any rule whose peers and ports both fit; no peers is everybody."""
    if "Egress" not in spec["policyTypes"]:
        return True
    return any(
        (port, protocol) in {(item["port"], item["protocol"]) for item in rule["ports"]}
        and ("to" not in rule or any(is_peer(peer, address) for peer in rule["to"]))
        for rule in spec["egress"]
    )


@pytest.mark.parametrize("address", PUBLIC)
@pytest.mark.parametrize("name", POLICIES)
def test_both_families_of_the_outside_are_open_on_443(name: str, address: str) -> None:
    spec = policy(name, rendered(scenario("default")))

    assert may_call(spec, address, 443)
    assert not may_call(spec, address, 80)
    assert not may_call(spec, address, 22)


@pytest.mark.parametrize("address", PRIVATE)
def test_driver_pods_call_nothing_inside_the_network(address: str) -> None:
    spec = policy("hattivatti-driver", rendered(scenario("default")))

    assert [port for port in (80, 443, 6443, 8080, 10250) if may_call(spec, address, port)] == []


def test_driver_pods_reach_dns_and_the_metadata_server() -> None:
    spec = policy("hattivatti-driver", rendered(scenario("default")))
    openshift = policy("hattivatti-driver", rendered(scenario("openshift")))

    assert may_call(spec, METADATA, 80)
    assert may_call(spec, "169.254.169.252", 988)
    assert may_call(spec, METADATA, 53, "UDP")
    assert not may_call(openshift, METADATA, 80)
    (peer,) = openshift["egress"][0]["to"]
    assert "openshift-dns" in json.dumps(peer)
    assert {(item["port"], item["protocol"]) for item in openshift["egress"][0]["ports"]} == {
        (port, protocol) for port in (53, 5353) for protocol in ("TCP", "UDP")
    }


@pytest.mark.parametrize("name", ["default", "dual-stack", "outside-google", "high-availability"])
def test_driver_pods_reach_every_address_they_are_given(name: str) -> None:
    items = rendered(scenario(name))
    seen: dict[str, Any] = {key.lower(): text for key, text in service_environment(items).items()}
    given = json.dumps(readable(every_manifest(Renderer(Settings(**seen)), request())))
    ports = {
        (found.hostname, found.port or {"http": 80, "https": 443}[found.scheme])
        for found in map(urlsplit, re.findall(r"https?://[^\s\"'\\,]+", given))
    }

    assert {host for host, _ in ports} >= {"globus.example.org", "keys.example.org"}
    spec = policy("hattivatti-driver", items)
    for address in PUBLIC:
        assert [one for one in sorted(ports) if not may_call(spec, address, one[1])] == []


def test_ports_that_addresses_name_are_opened_for_who_calls_them_alone() -> None:
    change = {
        "config": {
            "towerApiUrl": "https://seqera.example.org:8444/api",
            "notifyUrl": "https://backend.example.org:8445",
            "globusDomain": "https://user.example.org/path:7000",
            "keyHandlerUrl": "https://[2001:db8::1]:8446/keys",
        }
    }
    items = rendered(merged(scenario("default"), change))
    opened = {
        name: [
            port
            for port in (443, 7000, 8444, 8445, 8446)
            if may_call(policy(name, items), PUBLIC[0], port)
        ]
        for name in POLICIES
    }

    assert opened == {"hattivatti": [443, 8444, 8445], "hattivatti-driver": [443, 8444, 8446]}


def test_the_kubernetes_api_is_open_to_driver_pods_with_a_token_alone() -> None:
    with_token = merged(scenario("default"), {"config": {"driverServiceAccountToken": True}})

    assert may_call(policy("hattivatti-driver", rendered(with_token)), "10.0.0.1", 6443)
    assert not may_call(policy("hattivatti-driver", rendered(scenario("default"))), "10.0.0.1", 443)


def test_values_open_the_driver_pods_network_or_close_it() -> None:
    closed = {
        "egress": {"dns": [], "metadataServer": {"enabled": False}},
        "driver": {"external": {"to": []}},
    }
    none = policy(
        "hattivatti-driver", rendered(merged(scenario("default"), {"networkPolicy": closed}))
    )
    opened = {"networkPolicy": {"driver": {"restrictEgress": False}}}
    everything = policy("hattivatti-driver", rendered(merged(scenario("default"), opened)))
    (extra,) = scenario("dual-stack")["networkPolicy"]["driver"]["extra"]

    assert (none["policyTypes"], "egress" in none) == (["Ingress", "Egress"], False)
    assert everything["policyTypes"] == ["Ingress"]
    assert extra in policy("hattivatti-driver", rendered(scenario("dual-stack")))["egress"]


def test_the_driver_pods_policy_selects_what_the_service_makes_whatever_labels_are_added() -> None:
    items = rendered(scenario("openshift"))
    seen: dict[str, Any] = {key.lower(): text for key, text in service_environment(items).items()}
    renderer = Renderer(Settings(**seen))
    pod = renderer.job(request(), renderer.nowhere())["spec"]["template"]["metadata"]["labels"]
    chosen = policy("hattivatti-driver", items)["podSelector"]["matchLabels"]

    assert chosen.items() <= pod.items()
    assert pod["sidecar.istio.io/inject"] == "false"
    assert labels.JOB_ID in pod


def test_the_service_is_offered_in_the_families_of_the_cluster() -> None:
    spec = only(rendered(scenario("dual-stack")), "Service")["spec"]

    assert (spec["ipFamilyPolicy"], spec["ipFamilies"]) == ("PreferDualStack", ["IPv6", "IPv4"])
    assert not only(rendered(scenario("default")), "Service")["spec"].keys() & {
        *("ipFamilyPolicy", "ipFamilies")
    }
