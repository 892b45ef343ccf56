"""Kubernetes quantities such as `500m` and `2Gi` as numbers.

No resource names.
"""

import re
from decimal import Decimal

PATTERN = re.compile(
    r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]+))?"
)
DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def is_quantity(text: str) -> bool:
    """Whether a text is a quantity."""
    return PATTERN.fullmatch(text) is not None


def amount(value: str | float) -> Decimal:
    """Give the number a quantity stands for. Raises ValueError."""
    match = PATTERN.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a quantity")
    number, suffix, exponent = Decimal(match[1]), match[2] or "", match[3]
    if exponent:
        return number.scaleb(int(exponent))
    if suffix in BINARY:
        return number * Decimal(1024) ** BINARY[suffix]
    return number.scaleb(DECIMAL.get(suffix, 0))
