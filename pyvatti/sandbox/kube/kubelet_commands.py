"""Runs a parsed script as process 1 of a container: its commands, files, trap and signals.

No parsing, and nothing outside the given files and environment is touched.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pyvatti.sandbox.kube.kubelet_syntax import Choice, Command, Loop, Simple, Step, parse

NOT_FOUND = 127
PAST_A_YEAR = 3e7  # seconds; `sleep infinity`
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+)|([?!$]))")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


class ShellExit(Exception):
    """The script ended itself."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit {code}")
        self.code = code


def seconds_of(text: str) -> float:
    """Read an argument of `sleep`: `5`, `0.2`, `3m`, `infinity`."""
    if text in ("infinity", "inf"):
        return PAST_A_YEAR
    unit = _UNITS.get(text[-1:], 0)
    return float(text[:-1]) * unit if unit else float(text)


@dataclass(slots=True, kw_only=True)
class Shell:
    """The state of one running script."""

    env: dict[str, str]
    files: dict[str, bytes]
    log: Callable[[str], None]
    stop: asyncio.Event
    speed: float = 1.0
    group: asyncio.TaskGroup | None = None
    status: int = 0
    trap: list[Step] | None = None
    _children: list[asyncio.Task[int]] = field(default_factory=list)
    _output: list[str] | None = None

    async def run(self, steps: Sequence[Step]) -> int:
        """Run steps in order; gives the last status. Raises ShellExit."""
        for step in steps:
            if step.after and (self.status == 0) is not (step.after == "&&"):
                continue
            if step.background and self.group is not None:
                self._children.append(self.group.create_task(self._child(step.command)))
                self.status = 0
                continue
            await self._command(step.command)
            await self._handle_term()
        return self.status

    async def program(self, words: Sequence[str]) -> int:
        """Run one program by its words; gives its exit code."""
        try:
            return await PROGRAMS[words[0]](self, list(words[1:]))
        except ShellExit as ended:
            return ended.code

    def kill_background(self) -> None:
        """End what still runs in the background, as the end of process 1 does."""
        for child in self._children:
            child.cancel()

    def say(self, text: str) -> None:
        """Write a line to the standard output, wherever that goes."""
        if self._output is None:
            self.log(text)
        else:
            self._output.append(text)

    async def wait(self) -> None:
        """Wait for the children, or for TERM if it is trapped."""
        waiting = [child for child in self._children if not child.done()]
        if not waiting or self.group is None:
            return
        term = self.group.create_task(self.stop.wait())
        watched = {*waiting} if self.trap is None else {*waiting, term}
        await asyncio.wait(
            watched, return_when="ALL_COMPLETED" if self.trap is None else "FIRST_COMPLETED"
        )
        term.cancel()

    async def pause(self, duration: float) -> None:
        """Sleep for scaled seconds."""
        await asyncio.sleep(duration / self.speed)

    async def _child(self, command: Command) -> int:
        # A child knows no trap; TERM reaches process 1 alone.
        child = Shell(
            env=dict(self.env), files=self.files, log=self.log, stop=self.stop, speed=self.speed
        )
        try:
            return await child.run([Step(command)])
        except ShellExit as ended:
            return ended.code

    async def _handle_term(self) -> None:
        if self.trap is not None and self.stop.is_set():
            handler, self.trap = self.trap, None
            await self.run(handler)

    async def _command(self, command: Command) -> None:
        if isinstance(command, Simple):
            self.status = await self._simple(command)
        elif isinstance(command, Choice):
            chosen = command.then if await self.run(command.condition) == 0 else command.otherwise
            self.status = 0
            await self.run(chosen)
        else:
            await self._loop(command)

    async def _loop(self, loop: Loop) -> None:
        if loop.variable:
            for item in loop.items:
                self.env[loop.variable] = self._expand(item)
                await self.run(loop.body)
            return
        while (await self.run(loop.condition) == 0) is not loop.negated:
            await self.run(loop.body)
            await asyncio.sleep(0)  # a loop without sleep must not stop the world
        self.status = 0

    async def _simple(self, command: Simple) -> int:
        words = [self._expand(word) for word in command.words]
        while words and (assigned := _ASSIGNMENT.fullmatch(words[0])):
            self.env[assigned[1]] = assigned[2]
            words.pop(0)
        if not words:
            return 0
        program = PROGRAMS.get(words[0].rpartition("/")[2])
        if program is None:
            self.log(f"sh: {words[0]}: not found")
            return NOT_FOUND
        target = next((item for item in command.redirects if item[0] == 1), None)
        if target is None or target[2] in ("1", "2", "/dev/stdout", "/dev/stderr"):
            return await program(self, words[1:])
        return await self._redirected(program, words[1:], target)

    async def _redirected(
        self, program: "Program", arguments: list[str], target: tuple[int, str, str]
    ) -> int:
        self._output = []
        try:
            code = await program(self, arguments)
            written = "".join(f"{line}\n" for line in self._output).encode()
        finally:
            self._output = None
        path = self._expand(target[2])
        if path != "/dev/null":
            self.files[path] = (self.files.get(path, b"") if target[1] == ">>" else b"") + written
        return code

    def _expand(self, word: str) -> str:
        def value(match: re.Match[str]) -> str:
            special = {"?": str(self.status), "$": "1", "!": "2"}
            return special.get(match[3] or "", self.env.get(match[1] or match[2] or "", ""))

        return _VARIABLE.sub(value, word)


Program: TypeAlias = Callable[[Shell, list[str]], Awaitable[int]]


async def _exit(shell: Shell, arguments: list[str]) -> int:
    raise ShellExit(int(arguments[0]) % 256 if arguments else shell.status)


async def _sleep(shell: Shell, arguments: list[str]) -> int:
    await shell.pause(sum(seconds_of(item) for item in arguments))
    return 0


async def _echo(shell: Shell, arguments: list[str]) -> int:
    shell.say(" ".join(item for item in arguments if item not in ("-n", "-e")))
    return 0


async def _printf(shell: Shell, arguments: list[str]) -> int:
    text = arguments[0] if arguments else ""
    for item in arguments[1:]:
        text = re.sub(r"%[sd]", item.replace("\\", r"\\"), text, count=1)
    for line in text.replace("\\n", "\n").removesuffix("\n").split("\n"):
        shell.say(line)
    return 0


async def _true(_shell: Shell, _arguments: list[str]) -> int:
    return 0


async def _false(_shell: Shell, _arguments: list[str]) -> int:
    return 1


async def _cat(shell: Shell, arguments: list[str]) -> int:
    code = 0
    for path in arguments:
        if path not in shell.files:
            shell.log(f"cat: can't open '{path}': No such file or directory")
            code = 1
            continue
        for line in shell.files[path].decode(errors="replace").removesuffix("\n").split("\n"):
            shell.say(line)
    return code


async def _ls(shell: Shell, arguments: list[str]) -> int:
    folders = [item for item in arguments if not item.startswith("-")] or ["/"]
    code = 0
    for folder in folders:
        prefix = folder.rstrip("/") + "/"
        inside = {
            path[len(prefix) :].split("/")[0] for path in shell.files if path.startswith(prefix)
        }
        code = 0 if inside or folder in shell.files else 1
        for name in sorted(inside):
            shell.say(name)
    return code


async def _test(shell: Shell, arguments: list[str]) -> int:
    words = [item for item in arguments if item != "]"]
    if words[:1] == ["!"]:
        return 0 if await _test(shell, words[1:]) else 1
    return 0 if _holds(shell.files, words) else 1


def _holds(files: Mapping[str, bytes], words: list[str]) -> bool:
    if len(words) == 1:
        return bool(words[0])
    if len(words) == 2:
        operator, operand = words
        folder = any(path.startswith(operand.rstrip("/") + "/") for path in files)
        return {
            "-n": bool(operand),
            "-z": not operand,
            "-d": folder,
            "-e": folder or operand in files,
            "-s": bool(files.get(operand)),
        }.get(operator, operand in files)
    if len(words) == 3:
        left, operator, right = words
        return (left == right) is (operator in ("=", "==", "-eq"))
    return False


async def _trap(shell: Shell, arguments: list[str]) -> int:
    if {"TERM", "SIGTERM", "15"} & set(arguments[1:]):
        shell.trap = None if arguments[0] in ("-", "") else parse(arguments[0])
    return 0


async def _wait(shell: Shell, _arguments: list[str]) -> int:
    await shell.wait()
    return 0


async def _exec(shell: Shell, arguments: list[str]) -> int:
    if not arguments:
        return 0
    shell.trap = None  # the new program does not inherit the handler
    if arguments[0] not in PROGRAMS:
        shell.log(f"sh: exec: {arguments[0]}: not found")
        raise ShellExit(NOT_FOUND)
    raise ShellExit(await PROGRAMS[arguments[0]](shell, arguments[1:]))


async def _env(shell: Shell, _arguments: list[str]) -> int:
    for name, value in shell.env.items():
        shell.say(f"{name}={value}")
    return 0


async def _export(shell: Shell, arguments: list[str]) -> int:
    for item in arguments:
        name, sign, value = item.partition("=")
        if sign:
            shell.env[name] = value
    return 0


async def _touch(shell: Shell, arguments: list[str]) -> int:
    for path in arguments:
        shell.files.setdefault(path, b"")
    return 0


async def _remove(shell: Shell, arguments: list[str]) -> int:
    for path in arguments:
        shell.files.pop(path, None)
    return 0


async def _tail(shell: Shell, _arguments: list[str]) -> int:
    await shell.pause(PAST_A_YEAR)  # `tail -f /dev/null`: the usual way to wait for ever
    return 0


PROGRAMS: Mapping[str, Program] = {
    "exit": _exit, "sleep": _sleep, "echo": _echo, "printf": _printf, "true": _true, ":": _true,
    "false": _false, "cat": _cat, "ls": _ls, "test": _test, "[": _test, "trap": _trap,
    "wait": _wait, "exec": _exec, "env": _env, "export": _export, "touch": _touch, "rm": _remove,
    "tail": _tail, "set": _true, "mkdir": _true, "cd": _true, "kill": _true, "id": _true,
}  # fmt: skip
