"""How long to wait before the next attempt.

No sleeping and no clock here: callers pass the time and wait themselves.
"""

from random import SystemRandom

_random = SystemRandom()


def spread(seconds: float, share: float) -> float:
    """Lengthen a duration by a random part of up to `share` of it, so that replicas drift apart."""
    return seconds * (1 + share * _random.random())


def between(least: float, most: float) -> float:
    """Choose a random duration in seconds."""
    return _random.uniform(least, most)


class Backoff:
    """Doubling delays in seconds up to `cap`, each spread by up to a quarter.

    Start over after `calm` seconds without a failure.
    """

    def __init__(self, *, base: float, cap: float, calm: float) -> None:
        self._base = base
        self._cap = cap
        self._calm = calm
        self._failures = 0
        self._last = float("-inf")

    def next(self, now: float) -> float:
        """Count a failure at monotonic time `now` and give the delay after it."""
        if now - self._last > self._calm:
            self._failures = 0
        self._last = now
        # The exponent is bounded: 2**1024 is no float.
        delay = min(self._cap, self._base * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return min(self._cap, spread(delay, 0.25))
