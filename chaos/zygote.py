"""A process that has imported the service once and forks it as often as it is asked to.

Run by chaos.process alone. Importing costs seconds, a fork milliseconds; what runs in the fork is
`pyvatti serve` with an environment of its own, as `python -m pyvatti serve` would run it.

Standard input: one line a service, `{"env": {...}, "log": path}`. Standard output: `{"pid"}` for
each start and `{"pid", "code"}` for each end (negative: the signal). At the end of the input the
whole process group is killed.
"""

import gc
import json
import os
import signal
import sys
from typing import Any, NoReturn

from pyvatti import cli


def main() -> None:
    """Fork services until the input ends."""
    if os.getpgrp() != os.getpid():
        os.setsid()
    gc.collect()
    gc.freeze()  # what is never collected is never copied
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    _say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _serve(order)
        _say({"pid": pid})
    os.killpg(0, signal.SIGKILL)


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _reap() -> None:
    """Tell of every child that ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _serve(order: dict[str, Any]) -> NoReturn:
    """Become the service; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.environ.clear()  # noqa: TID251 - what exec would do
    os.environ.update(order["env"])  # noqa: TID251
    sys.argv = ["pyvatti", "serve"]
    code = 1
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
