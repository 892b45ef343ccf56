"""The real kubectl for tests, and manifests to feed it."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from kube_cluster import Sandbox
from patience import PATIENCE

from pyvatti.sandbox.world import World

JOB = """
apiVersion: batch/v1
kind: Job
metadata:
  name: hello
  labels: {tier: one}
  annotations: {note: first}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: busybox
          command: [sh, -c, "echo one; echo two; exit 0"]
"""
SLEEPING = JOB.replace("echo one; echo two; exit 0", "sleep 600")
HELD = JOB.replace("  labels:", "  finalizers: [kubectl.test/hold]\n  labels:")
FAILING = JOB.replace("exit 0", "exit 3")
SECRET = """
apiVersion: v1
kind: Secret
metadata:
  name: credentials
  labels: {tier: one}
stringData: {password: secret}
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a program answered."""

    code: int
    out: str
    err: str


class Kubectl:
    """The kubectl on PATH with a home and a configuration of its own."""

    def __init__(self, sandbox: Sandbox | World, home: Path) -> None:
        self.sandbox = sandbox
        self.home = home
        self.configuration = home / "config"
        self.configuration.write_text(sandbox.kube.kubeconfig(), encoding="utf-8")

    async def start(self, *arguments: str, editor: str = "") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "kubectl",
            f"--kubeconfig={self.configuration}",
            f"--cache-dir={self.home / 'cache'}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBE_EDITOR": editor},
        )

    async def run(self, *arguments: str, stdin: str = "", editor: str = "") -> Result:
        process = await self.start(*arguments, editor=editor)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())

    async def ok(self, *arguments: str, stdin: str = "", editor: str = "") -> str:
        result = await self.run(*arguments, stdin=stdin, editor=editor)
        assert result.code == 0, result
        return result.out


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]
