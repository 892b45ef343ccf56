"""Prints a CycloneDX 1.6 document of the Python and Debian packages of the image it runs in.

Needs nothing but Python, says the same for the same image, and reads no network.
"""
# ruff: noqa: INP001, T201 - a script for the inside of an image

import json
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

DPKG = Path("/var/lib/dpkg/status")
RELEASE = Path("/etc/os-release")


def python_packages() -> list[dict[str, Any]]:
    """Give one component per installed distribution."""
    found = []
    for package in metadata.distributions():
        name = package.metadata["Name"].lower().replace("_", "-")
        licence = package.metadata.get("License-Expression")
        found.append(
            {
                "type": "library",
                "name": name,
                "version": package.version,
                "purl": f"pkg:pypi/{name}@{package.version}",
                **({"licenses": [{"expression": licence}]} if licence else {}),
            }
        )
    return found


def debian_packages() -> list[dict[str, Any]]:
    """Give one component per installed Debian package; none on another base."""
    if not DPKG.is_file():
        return []
    found = []
    for paragraph in DPKG.read_text().split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if ": " in line[1:] and line[0] != " "
        )
        if fields.get("Status") == "install ok installed":
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}"
            found.append({"type": "library", "name": name, "version": version, "purl": purl})
    return found


def system() -> list[dict[str, Any]]:
    """Give Python itself and the operating system."""
    text = RELEASE.read_text() if RELEASE.is_file() else ""
    release = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    version = release.get("VERSION_ID", "").strip('"')
    os_name = release.get("ID", "unknown").strip('"')
    python = ".".join(map(str, sys.version_info[:3]))
    return [
        {"type": "operating-system", "name": os_name, "version": version},
        {"type": "platform", "name": "python", "version": python},
    ]


def document(version: str) -> dict[str, Any]:
    """Put the document together; its serial number follows from its content."""
    parts = sorted([*python_packages(), *debian_packages()], key=lambda part: part["purl"])
    components = [
        {**part, "bom-ref": part.get("purl", part["name"])} for part in [*system(), *parts]
    ]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "pyvatti", "version": version}},
        "components": components,
    }


if __name__ == "__main__":
    print(json.dumps(document(sys.argv[1]), indent=2))
