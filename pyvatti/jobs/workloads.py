"""PURE: what a Workload of Kueue says of the Job it stands for."""

from collections.abc import Callable

from pyvatti.models import Manifest, QueueWords

LONGEST = 500  # characters of each sentence


def read_workload(raw: Manifest, clean: Callable[[str], str]) -> QueueWords:
    """Read `{"spec": {"active"}, "status": {"conditions": [{"type", "status", "message"}]}}`.

    The condition Evicted stays True until it is admitted again, QuotaReserved says why it is not.
    """
    found = {
        item.get("type"): item
        for item in (raw.get("status") or {}).get("conditions") or ()
        if isinstance(item, dict)
    }
    reserved = _said(found.get("QuotaReserved"), "False", clean)
    inactive = (raw.get("spec") or {}).get("active") is False
    return QueueWords(
        evicted=_said(found.get("Evicted"), "True", clean),
        pending="its Workload is deactivated" if inactive else reserved,
    )


def _said(condition: Manifest | None, status: str, clean: Callable[[str], str]) -> str:
    if condition is None or condition.get("status") != status:
        return ""
    return " ".join(clean(str(condition.get("message") or "")).split())[:LONGEST]
