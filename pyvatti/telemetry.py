"""Set-up of logs and metrics. No other room configures either.

Every log line is an event with keys; `job` is bound for everything done about one job.
"""

import logging
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from itertools import product
from typing import Any

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pyvatti import __version__, foreign
from pyvatti.errors import Unavailable
from pyvatti.models import Delivery, Event
from pyvatti.redaction import Redactor
from pyvatti.settings import Settings, secret_values

STEP_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800)
STAY_SECONDS = (1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 48 * 3600)
CALL_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 30)
SWEPT_KINDS = ("bucket", "pod", "secret", "job", "record")
NEEDS_PERSON = ("clean-up stuck", "pod finalizer")  # what jobs wait for
NEIGHBOURS = ("kubernetes", "seqera", "storage", "backend")


class Metrics:
    """Everything `/metrics` shows, in one registry. Durations are in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.build = Gauge(
            "pyvatti_build_info", "Which version runs", ["version"], registry=self.registry
        )
        self.build.labels(__version__).set(1)
        self.jobs = Gauge("pyvatti_jobs", "Live jobs by state", ["state"], registry=self.registry)
        self.waiting = Gauge(
            "pyvatti_jobs_waiting",
            "Live jobs by what they wait for",
            ["on"],
            registry=self.registry,
        )
        self.accepted = Counter(
            "pyvatti_launches",
            "Answers to POST /launch by status, dry runs apart",
            ["answer"],
            registry=self.registry,
        )
        self.finished = Counter(
            "pyvatti_jobs_finished",
            "Jobs that entered a terminal state",
            ["state", "reason"],
            registry=self.registry,
        )
        self.steps = Histogram(
            "pyvatti_step_seconds",
            "Duration of each step of the lifecycle",
            ["step"],
            buckets=STEP_SECONDS,
            registry=self.registry,
        )
        self.stays = Histogram(
            "pyvatti_state_seconds",
            "How long jobs stayed in a state they left; a terminal one until they were let go",
            ["state"],
            buckets=STAY_SECONDS,
            registry=self.registry,
        )
        self.step_errors = Counter(
            "pyvatti_step_errors",
            "Steps that failed and are tried again",
            ["step", "error"],
            registry=self.registry,
        )
        self.neighbour_calls = Histogram(
            "pyvatti_neighbour_call_seconds",
            "Calls to a neighbour, answered or not; watches and streamed logs apart",
            ["neighbour"],
            buckets=CALL_SECONDS,
            registry=self.registry,
        )
        self.neighbour_errors = Counter(
            "pyvatti_neighbour_errors",
            "Calls to a neighbour that failed",
            ["neighbour", "error"],
            registry=self.registry,
        )
        self.requests = Histogram(
            "pyvatti_request_seconds",
            "Requests to the API until the end of their answer",
            ["method", "route", "status"],
            buckets=CALL_SECONDS,
            registry=self.registry,
        )
        self.attempts = Counter(
            "pyvatti_notice_attempts",
            "Tries to tell the backend an event, by what its answer meant",
            ["event", "answer"],
            registry=self.registry,
        )
        self.notices = Counter(
            "pyvatti_notices",
            "Events of the outbox by how their delivery ended",
            ["event", "delivery"],
            registry=self.registry,
        )
        self.outbox = Gauge(
            "pyvatti_outbox_depth", "Events not delivered yet", registry=self.registry
        )
        self.outbox_age = Gauge(
            "pyvatti_outbox_oldest_seconds",
            "Age of the oldest event not delivered yet",
            registry=self.registry,
        )
        self.leader = Gauge("pyvatti_leader", "1 while this replica acts", registry=self.registry)
        self.oldest_undeleted = Gauge(
            "pyvatti_oldest_undeleted_seconds",
            "Age of the oldest finished job, live or recorded, whose data was not seen to be gone",
            registry=self.registry,
        )
        self.fresh = Gauge(
            "pyvatti_informers_fresh",
            "1 while the watches of the Kubernetes API are heard",
            registry=self.registry,
        )
        self.silence = Gauge(
            "pyvatti_informer_silence_seconds",
            "Time since the Kubernetes API last spoke on a watch",
            ["kind"],
            registry=self.registry,
        )
        self.swept = Counter(
            "pyvatti_swept",
            "What the sweeper removed, by kind; a `job` is one it found again",
            ["kind"],
            registry=self.registry,
        )
        self.events_refused = Counter(
            "pyvatti_events_refused",
            "Kubernetes Events about jobs that the API server did not take, by why",
            ["error"],
            registry=self.registry,
        )
        self.unexpected = Counter(
            "pyvatti_unexpected_errors",
            "Errors nobody expected, by the part they met; it goes on with what is next",
            ["part", "error"],
            registry=self.registry,
        )
        self.sweep_failing = Gauge(
            "pyvatti_sweep_failing",
            "Things the sweeper fails at and tries again ever later, by kind",
            ["kind"],
            registry=self.registry,
        )
        self.set_aside = Gauge(
            "pyvatti_set_aside",
            "Things that carry our labels and are not ours, or not understood, by kind: left alone",
            ["kind"],
            registry=self.registry,
        )
        self.data_remains = Gauge(
            "pyvatti_data_remains",
            "Finished jobs of which something was not deleted or not seen to be gone",
            registry=self.registry,
        )
        self.passes = Counter(
            "pyvatti_passes", "Passes made over single jobs", registry=self.registry
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Show the counters that alerts watch before they count: else the first one is no increase.

        Prometheus sees an increase only between two samples of one series.
        """
        ends = (Delivery.DELIVERED, Delivery.DEAD, Delivery.UNDELIVERED)
        for event, delivery in product(Event, ends):
            self.notices.labels(event.value, delivery.value)
        for metric, values in (
            (self.swept, (*SWEPT_KINDS, "results")),
            (self.sweep_failing, SWEPT_KINDS),
            (self.set_aside, SWEPT_KINDS),
            (self.waiting, NEEDS_PERSON),
            (self.accepted, ("201", "503")),
            (self.events_refused, ("Rejected", "Denied", "Unavailable", "QueueFull")),
        ):
            for value in values:
                metric.labels(value)
        for neighbour in NEIGHBOURS:
            self.neighbour_calls.labels(neighbour)
        for neighbour, error in product(NEIGHBOURS, ("Denied", "Unavailable")):
            self.neighbour_errors.labels(neighbour, error)

    def page(self) -> tuple[bytes, str]:
        """Give the exposition text and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


# each would be followed by a second series that nobody asks for
disable_created_metrics()  # type: ignore[no-untyped-call]
metrics = Metrics()


@contextmanager
def counted(neighbour: str) -> Iterator[None]:
    """Count and time the call inside; an error if it was not answered, or not usefully."""
    began = time.perf_counter()
    try:
        yield
    except Unavailable as error:
        metrics.neighbour_errors.labels(neighbour, type(error).__name__).inc()
        raise
    finally:
        metrics.neighbour_calls.labels(neighbour).observe(time.perf_counter() - began)


def _drop_color_message(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Drop uvicorn's second, coloured copy of its message."""
    event.pop("color_message", None)
    return event


def _put_first(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Begin each line with what is looked for first.

    `severity` is what Google Cloud Logging reads: without it all of standard error is an ERROR.
    """
    head = {"timestamp": event.pop("timestamp"), "severity": event["level"].upper()}
    head |= {key: event.pop(key) for key in ("level", "event", "job") if key in event}
    return {**head, **event}


class _Redact:
    """Takes secrets and the personal data of the job at hand out of every value of a line.

    The last line of defence, whoever wrote the line: foreign text is clean when it comes in.
    """

    def __init__(self, settings: Settings) -> None:
        self._redactor = Redactor(secret_values(settings))

    def __call__(
        self, _logger: Any, _name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        line = "\n".join(map(str, event.values()))
        if self._clean_text(line) == line:  # nearly always, and one look is cheaper than ten
            return event
        return {key: self._clean(value) for key, value in event.items()}

    def _clean(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._clean_text(value if isinstance(value, str) else repr(value))

    def _clean_text(self, text: str) -> str:
        return foreign.clean_known(self._redactor(text))


_PROCESSORS: list[structlog.types.Processor] = []


def configure_logging(settings: Settings) -> None:
    """Send all logs, those of libraries too, to standard error in one format."""
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_color_message,
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    shape: list[structlog.types.Processor] = [_put_first] if as_json else []
    # The list stays the same one: loggers that were used before keep it.
    _PROCESSORS[:] = [
        structlog.stdlib.filter_by_level,
        *shared,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    structlog.configure(
        processors=_PROCESSORS,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # as text here: it is to be redacted, and a console's own way shows local variables
                structlog.processors.format_exc_info,
                _Redact(settings),
                *shape,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(settings.log_level.upper())
    for noisy in ("httpx", "httpcore", "google", "urllib3", "kubernetes_asyncio", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
