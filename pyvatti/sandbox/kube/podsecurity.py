"""The Pod Security standard "restricted".

Follows kubernetes/pod-security-admission policy/check_*.go, the checks a batch pod can meet.
"""

from collections.abc import Callable, Iterator
from typing import Any

Body = dict[str, Any]

VOLUMES = frozenset(
    {
        "name",
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
SECCOMP = ("RuntimeDefault", "Localhost")


def violations(level: str, spec: Body) -> str:
    """Say what a pod spec breaks, `PodSecurity "restricted:latest": ...`; "" if nothing."""
    if level != "restricted":
        return ""
    found = [text for check in _CHECKS if (text := check(spec))]
    return f'PodSecurity "restricted:latest": {", ".join(found)}' if found else ""


def _containers(spec: Body) -> Iterator[Body]:
    yield from spec.get("initContainers", [])
    yield from spec.get("containers", [])


def _where(spec: Body, is_bad: Callable[[Body], bool]) -> str:
    """Name the containers whose securityContext is bad."""
    names = [
        f'"{item["name"]}"' for item in _containers(spec) if is_bad(item.get("securityContext", {}))
    ]
    if not names:
        return ""
    return f"container{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _escalation(spec: Body) -> str:
    where = _where(spec, lambda context: context.get("allowPrivilegeEscalation") is not False)
    return where and (
        f"allowPrivilegeEscalation != false ({where} must set"
        " securityContext.allowPrivilegeEscalation=false)"
    )


def _capabilities(spec: Body) -> str:
    where = _where(
        spec, lambda context: "ALL" not in context.get("capabilities", {}).get("drop", [])
    )
    return where and (
        f'unrestricted capabilities ({where} must set securityContext.capabilities.drop=["ALL"])'
    )


def _volumes(spec: Body) -> str:
    bad = [
        f'volume "{volume["name"]}" uses restricted volume type "{source}"'
        for volume in spec.get("volumes", [])
        for source in volume
        if source not in VOLUMES
    ]
    return f"restricted volume types ({', '.join(bad)})" if bad else ""


def _non_root(spec: Body) -> str:
    whole = spec.get("securityContext", {}).get("runAsNonRoot")
    where = _where(spec, lambda context: context.get("runAsNonRoot", whole) is not True)
    return where and (
        f"runAsNonRoot != true (pod or {where} must set securityContext.runAsNonRoot=true)"
    )


def _root_user(spec: Body) -> str:
    whole = spec.get("securityContext", {}).get("runAsUser")
    where = _where(spec, lambda context: context.get("runAsUser", whole) == 0)
    return where and f"runAsUser=0 ({where} must not set runAsUser=0)"


def _seccomp(spec: Body) -> str:
    whole = spec.get("securityContext", {}).get("seccompProfile", {})
    where = _where(
        spec, lambda context: context.get("seccompProfile", whole).get("type") not in SECCOMP
    )
    return where and (
        f"seccompProfile (pod or {where} must set securityContext.seccompProfile.type to"
        ' "RuntimeDefault" or "Localhost")'
    )


def _host(spec: Body) -> str:
    used = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    return f"host namespaces ({', '.join(f'{name}=true' for name in used)})" if used else ""


_CHECKS = (_host, _escalation, _capabilities, _volumes, _non_root, _root_user, _seccomp)
