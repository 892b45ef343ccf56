"""Random and mutated bodies of a launch: seeded, so that each can be made again.

No requests and no checks.
"""

import json
import random
from copy import deepcopy
from typing import Any

from stage import launch_body, payload

SEEDS = ("launch-ok-multi-pgs", "launch-ok-pgp-bfile-zst", "launch-ok-vcf-two-traits")
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**63, -(2**63) - 1, 10**400, 1e308, 0.1, "", " ", "\n", "\x00"),
    *(
        "a" * 10_000,
        "\ud800",
        "\u202e",
        "é",
        "😀",
        "INTP1\n",
        "..",
        "../../etc/passwd",
        "//",
        "-rf",
    ),
    *(
        "$(id)",
        "`id`",
        "'; id #",
        '"',
        "\\",
        "${jndi:x}",
        "#{1}",
        "{{7*7}}",
        "{% x %}",
        "a: b",
        "|",
    ),
    *(
        "true",
        "null",
        "NaN",
        "1e5",
        [],
        {},
        [[]],
        [None],
        {"": None},
        {"__proto__": {}},
        [1] * 2000,
    ),
)


def starting_points() -> list[dict[str, Any]]:
    """Give valid bodies to begin with."""
    return [launch_body(), *(payload(f"{name}.json") for name in SEEDS)]


def bodies(count: int, seed: int) -> list[bytes]:
    """Make bodies: some random, most of them valid ones with a few faults."""
    chance = random.Random(seed)  # noqa: S311 - to be repeatable is the point
    starts = starting_points()
    made = []
    for _ in range(count):
        if chance.random() < 0.05:
            made.append(chance.randbytes(chance.randrange(200)))
            continue
        body = deepcopy(chance.choice(starts))
        for _ in range(chance.randrange(3)):
            _change(body, chance)
        text = _dump(body, chance)
        made.append(_garble(text, chance) if chance.random() < 0.3 else text)
    return made


def _change(body: Any, chance: random.Random) -> None:
    """Replace, remove or add something somewhere."""
    holder = body
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(holder[key], dict | list) and chance.random() < 0.8:
            holder = holder[key]
            continue
        break
    match chance.randrange(5):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[chance.choice(("new", "id", "", "pgs_id"))] = chance.choice(NASTY)
        case 2 if isinstance(holder, list):
            holder += deepcopy(holder)
        case 3 if isinstance(holder[key], str):
            holder[key] += str(chance.choice(NASTY))
        case _:
            holder[key] = deepcopy(chance.choice(NASTY))


def _dump(body: Any, chance: random.Random) -> bytes:
    is_ascii = chance.random() < 0.5
    text = json.dumps(body, ensure_ascii=is_ascii)
    if chance.random() < 0.1:
        text = text.replace('"id":', '"id": 1, "id":', 1)
    return text.encode("utf-8", errors="surrogatepass")


def _garble(text: bytes, chance: random.Random) -> bytes:
    """Cut, repeat, flip or insert bytes."""
    at, other = sorted(chance.randrange(len(text) + 1) for _ in range(2))
    match chance.randrange(4):
        case 0:
            return text[:at]
        case 1:
            return text[:other] + text[at:]
        case 2:
            return text[:at] + bytes([chance.randrange(256)]) + text[at + 1 :]
        case _:
            return text[:at] + chance.randbytes(3) + text[at:]
