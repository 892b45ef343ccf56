"""The table: what was measured, its limit, the verdict; and where it was measured."""

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = (
    "pyvatti",
    "kubernetes-asyncio",
    "aiohttp",
    "fastapi",
    "uvicorn",
    "uvloop",
    "pydantic",
    "orjson",
    "google-cloud-storage",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `limit` None: for information; `value` None: not measured."""

    what: str
    value: float | None
    unit: str = ""
    limit: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the limit is kept; a figure without limit or value cannot miss it."""
        if self.limit is None or self.value is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """What, value, limit, verdict and note as text."""
        value = "-" if self.value is None else f"{_number(self.value)} {self.unit}".strip()
        sign = "≥" if self.at_least else "≤"
        limit = "-" if self.limit is None else f"{sign} {_number(self.limit)} {self.unit}".strip()
        return self.what, value, limit, self._verdict(), self.note

    def _verdict(self) -> str:
        if self.value is None:
            return "skipped"
        if self.limit is None:
            return "-"
        return "met" if self.is_met else "MISSED"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value < 10 else f"{value:.0f}"


def table(figures: Sequence[Figure]) -> str:
    """Write the figures as a Markdown table with columns of equal width."""
    rows = [("figure", "value", "limit", "verdict", "how"), *(figure.cells for figure in figures)]
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def surroundings(api_server: str) -> Iterator[str]:
    """Say when and where the figures were measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    yield f"date      {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    yield f"machine   {_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, load {load}"
    yield f"system    {platform.system()} {platform.release()}, Python {platform.python_version()}"
    yield f"packages  {', '.join(f'{name} {version(name)}' for name in PACKAGES)}"
    yield f"cluster   {api_server}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
