"""How long `helm install` takes for a chart with the same Job and Secret."""

import asyncio
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.objects import base_of, names_of, parsed
from bench.report import Figure
from bench.site import Site
from pyvatti.manifests import Renderer

WHAT = "accept ÷ helm install of an equivalent chart"
INSTALLS = 5
FIRST = 90_000_000  # numbers no other measurement uses


async def measure(site: Site, rate: float) -> Figure:
    """Compare the rate of accepted launches with installations in a row, if helm is here."""
    program = shutil.which("helm")
    if program is None:
        return Figure(WHAT, None, limit=30, at_least=True, note="no helm on the PATH")
    chart = _chart(site)
    seconds = [await _install(program, chart, site, FIRST + at) for at in range(INSTALLS)]
    note = f"{rate:.0f}/s ÷ {1 / median(seconds):.1f}/s, median of {INSTALLS}"
    return Figure(WHAT, rate * median(seconds), limit=30, at_least=True, note=note)


def _chart(site: Site) -> Path:
    """Write a chart with one Job and one Secret, named after the release."""
    names, request = names_of(0, site.namespace, "00000000-owner"), parsed(0)
    renderer, whose = Renderer(site.settings()), replace(site.installation, instance="helm")
    secret = renderer.driver_secret(request, names, whose)
    del secret["metadata"]["ownerReferences"]
    chart = site.folder / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: launch\nversion: 0.1.0\n")
    for manifest in (renderer.job(request, whose), secret):
        text = json.dumps(manifest).replace(names.base, "{{ .Release.Name }}")
        (chart / "templates" / f"{manifest['kind'].lower()}.yaml").write_text(text)
    return chart


async def _install(program: str, chart: Path, site: Site, number: int) -> float:
    release = base_of(number)
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        program, "install", release, str(chart),
        "--namespace", site.namespace, "--kubeconfig", str(site.folder / "kubeconfig"),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    if await process.wait():
        raise RuntimeError("helm install failed")
    return time.monotonic() - began
