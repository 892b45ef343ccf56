"""The routes about the process itself: open to everybody, without a word about any job."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from pyvatti import __version__
from pyvatti.api.problems import answers, problem
from pyvatti.api.service import Service
from pyvatti.telemetry import metrics

router = APIRouter()


class Health(BaseModel):
    """All is well."""

    status: str = "ok"


class Version(BaseModel):
    """Which version runs."""

    version: str


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.get("/healthz", response_model=Health, responses=answers(503))
async def healthz(request: Request) -> Health | JSONResponse:
    """Liveness: a restart would not help."""
    ailments = _service(request).ailments()
    return problem(503, "; ".join(ailments)) if ailments else Health()


@router.get("/readyz", response_model=Health, responses=answers(503))
async def readyz(request: Request) -> Health | JSONResponse:
    """Readiness: this replica can accept and answer."""
    obstacles = _service(request).obstacles()
    return problem(503, "; ".join(obstacles)) if obstacles else Health()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def show_metrics() -> Response:
    """Prometheus metrics."""
    page, media_type = metrics.page()
    return Response(page, media_type=media_type)


@router.get("/version")
async def version() -> Version:
    """Tell which version runs."""
    return Version(version=__version__)
