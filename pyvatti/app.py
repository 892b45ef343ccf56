"""Joins the rooms: opens the doors, starts the tasks, makes the FastAPI application.

No route and no decision here.
"""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import structlog
from fastapi import FastAPI

from pyvatti import foreign
from pyvatti.api import Service, make_api
from pyvatti.backend import Backend
from pyvatti.errors import PyvattiError
from pyvatti.kube import Elector, Home, KubeClient
from pyvatti.lifecycle.cache import Cache
from pyvatti.lifecycle.clock import SteadyClock, utc_now
from pyvatti.lifecycle.controller import Controller
from pyvatti.lifecycle.departure import Departure
from pyvatti.lifecycle.doors import Clock, Doors, Limits
from pyvatti.lifecycle.events import EventRecorder
from pyvatti.lifecycle.gauges import keep_gauges
from pyvatti.lifecycle.permissions import Permissions
from pyvatti.lifecycle.supervision import Supervisor
from pyvatti.manifests import Renderer, doubts
from pyvatti.seqera import Seqera
from pyvatti.settings import Settings, secret_values
from pyvatti.storage import BucketLimiter, Storage

log = structlog.get_logger(__name__)


def create_app(
    settings: Settings,
    *,
    limits: Limits | None = None,
    clock: Clock | None = None,
    supervisor: Supervisor | None = None,
) -> FastAPI:
    """Make the application; its lifespan runs the whole service.

    `supervisor` tells whoever runs the server when a part of the service ended.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with run_service(
            settings, limits=limits, clock=clock, supervisor=supervisor
        ) as service:
            app.state.service = service
            yield

    return make_api(settings, lifespan)


async def check(settings: Settings) -> None:
    """Open and close all doors, asking nobody: shows what start-up would stumble over.

    Raises ConfigurationError for templates, a kubeconfig or credentials that cannot be used.
    """
    async with AsyncExitStack() as stack:
        await _open_doors(settings, stack, Limits(), utc_now)


@contextlib.asynccontextmanager
async def run_service(
    settings: Settings,
    *,
    limits: Limits | None = None,
    clock: Clock | None = None,
    supervisor: Supervisor | None = None,
) -> AsyncIterator[Service]:
    """Open the doors, start informers, election and acting; stop all of it at the end.

    `limits` are how long neighbours are waited for, `clock` gives the time in UTC.
    Raises ConfigurationError for templates or a kubeconfig that cannot be used.
    """
    log.info("starting", settings=settings.model_dump(mode="json"))
    if settings.storage_emulator_host:
        log.warning("cloud storage is a stand-in", address=settings.storage_emulator_host)
    supervisor = supervisor or Supervisor()
    async with AsyncExitStack() as stack:
        stack.enter_context(foreign.hiding(secret_values(settings)))
        doors = await _open_doors(settings, stack, limits or Limits(), clock or SteadyClock())
        elector = Elector(
            doors.kube,
            name=settings.instance,
            identity=_identity(),
            lease_duration=settings.lease_duration,
            renew_deadline=settings.renew_deadline,
            retry_period=settings.retry_period,
        )
        controller = Controller(doors, supervisor, lambda: elector.may_act)
        departure = Departure(doors, elector, supervisor, controller.wake_all)
        permissions = Permissions(doors.kube)
        service = Service(doors, elector, controller, permissions, supervisor)
        parts = {
            "own namespace": doors.home.run(),
            "job informer": doors.cache.run_jobs(),
            "pod informer": doors.cache.run_pods(),
            "events": doors.events.run(),
            "leader election": elector.run(controller.lead),
            "gauges": keep_gauges(doors, elector),
            "permissions": permissions.watch(),
            "heart": service.beat(),
            "departure": departure.run(),
        }
        try:
            async with supervisor.running(parts):
                yield service
                await departure.see_through()
        finally:
            with contextlib.suppress(PyvattiError, TimeoutError):
                async with asyncio.timeout(settings.retry_period.total_seconds() * 2):
                    await elector.release()
            log.info("stopped")


async def _open_doors(
    settings: Settings, stack: AsyncExitStack, limits: Limits, clock: Clock
) -> Doors:
    renderer = Renderer(settings)
    renderer.check()
    for doubt in doubts(settings):
        log.warning("doubtful setting", doubt=doubt)
    kube = await KubeClient.connect(settings, limits.kube)
    stack.push_async_callback(kube.close)
    storage = Storage(settings, patience=limits.storage)
    stack.push_async_callback(storage.close)
    seqera = Seqera(settings, timeouts=limits.seqera, clock=clock)
    stack.push_async_callback(seqera.close)
    backend = Backend(settings, timeouts=limits.backend, clock=utc_now)
    stack.push_async_callback(backend.close)
    home = Home(kube, settings.instance)
    return Doors(
        settings=settings,
        kube=kube,
        home=home,
        storage=storage,
        limiter=BucketLimiter(settings.bucket_interval.total_seconds()),
        seqera=seqera,
        backend=backend,
        renderer=renderer,
        cache=Cache(kube, home, limits.watch),
        events=EventRecorder(kube, _identity()),
        limits=limits,
        clock=clock,
    )


def _identity() -> str:
    """Name this process for the Lease: the pod's name and something random."""
    return f"{socket.gethostname()}-{secrets.token_hex(4)}"
