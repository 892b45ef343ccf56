"""Puts routes, access and errors together into one FastAPI application."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import Depends, FastAPI

from pyvatti import __version__
from pyvatti.api import docs, probes, routes
from pyvatti.api.access import Gate
from pyvatti.api.middleware import Breakage, Crowd, Heads, Journal
from pyvatti.api.origin import Addressee
from pyvatti.api.problems import FieldProblem, Problem, answers, install_handlers
from pyvatti.launch import LaunchRequest
from pyvatti.settings import Settings

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_api(settings: Settings, lifespan: Lifespan) -> FastAPI:
    """Make the application; `lifespan` sets `app.state.service`."""
    app = FastAPI(
        title="pyvatti",
        version=__version__,
        summary="Runs polygenic score jobs on sensitive genomes and leaves nothing behind",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    if settings.api_auth == "none":  # said explicitly
        app.include_router(routes.router, responses=answers(400, 403, 421, 500), tags=["jobs"])
    else:
        gate = [Depends(Gate(settings))]
        app.include_router(
            routes.router, dependencies=gate, responses=answers(400, 401, 429, 500), tags=["jobs"]
        )
    app.include_router(probes.router, responses=answers(400, 500), tags=["process"])
    app.include_router(docs.router)
    app.add_middleware(Breakage)
    app.add_middleware(Heads)
    app.add_middleware(Addressee, settings=settings)
    app.add_middleware(Crowd)
    app.add_middleware(Journal)
    install_handlers(app)
    _document_shapes(app)
    return app


def _document_shapes(app: FastAPI) -> None:
    """Add the schemas that routes refer to by name to the OpenAPI document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (Problem, FieldProblem, LaunchRequest):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        return document

    # FastAPI's documented way to extend the document
    app.openapi = openapi  # type: ignore[method-assign]
