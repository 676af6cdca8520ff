"""The admin API, for people and for the command line: FastAPI, with its documentation at `/docs`.

It reads the Snapshot and shows it; a token is needed as soon as one is configured.
"""

from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from gateway.types import Backend, Model, Snapshot, Version


class BackendView(BaseModel):
    """One server of models, and the calls on it now."""

    id: str
    forms: list[str]
    ready: bool
    inflight: int


class VersionView(BaseModel):
    """One version: its state, and why it is so."""

    version: int
    state: str
    why: str
    served_name: str
    ready: bool
    waiting: int
    backends: list[BackendView]


class ModelView(BaseModel):
    """One model, with all that decides where its requests go."""

    name: str
    aliases: list[str]
    adapter: str
    discovers: bool
    labels: dict[str, int]
    traffic: dict[str, float]
    versions: list[VersionView]


class Loads:
    """How busy things are, as the admin API needs it."""

    def __init__(self, inflight: Callable[[str], int], waiting: Callable[[str, int], int]) -> None:
        self.inflight = inflight
        self.waiting = waiting


def admin_app(
    snapshot: Callable[[], Snapshot], loads: Loads, token_digest: bytes | None, version: str
) -> FastAPI:
    """Build the application. `token_digest` is the SHA-256 of the token, if one is needed."""
    app = FastAPI(
        title="Isthmus admin API",
        version=version,
        dependencies=[Depends(_guard(token_digest))] if token_digest else [],
    )

    @app.get("/api/models", summary="All models with their versions, labels and backends")
    async def models() -> list[ModelView]:
        """Show every model, each once, by its name."""
        return [
            _model(model, loads)
            for name, model in sorted(snapshot().models.items())
            if name == model.name
        ]

    @app.get("/api/models/{name:path}", summary="One model")
    async def one_model(name: str) -> ModelView:
        """Show one model, by its name or an alias."""
        model = snapshot().models.get(name)
        if model is None:
            raise HTTPException(404, f"no model is called {name!r}; GET /api/models lists them")
        return _model(model, loads)

    return app


def _guard(digest: bytes) -> Callable[..., None]:
    bearer = HTTPBearer(auto_error=False)

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if given is None or not compare_digest(sha256(given.credentials.encode()).digest(), digest):
            raise HTTPException(
                401,
                "send the admin token as 'Authorization: Bearer TOKEN'",
                headers={"www-authenticate": "Bearer"},
            )

    return check


def _model(model: Model, loads: Loads) -> ModelView:
    return ModelView(
        name=model.name,
        aliases=list(model.aliases),
        adapter=model.adapter,
        discovers=model.discovers,
        labels=dict(model.labels),
        traffic={str(share): weight for share, weight in model.traffic},
        versions=[_version(model.versions[number], loads) for number in sorted(model.versions)],
    )


def _version(version: Version, loads: Loads) -> VersionView:
    ready = {backend.id for backend in version.ready}
    return VersionView(
        version=version.number,
        state=version.state,
        why=version.why,
        served_name=version.served_name,
        ready=bool(ready),
        waiting=loads.waiting(version.model, version.number),
        backends=[_backend(backend, backend.id in ready, loads) for backend in version.backends],
    )


def _backend(backend: Backend, ready: bool, loads: Loads) -> BackendView:
    return BackendView(
        id=backend.id,
        forms=sorted(backend.forms),
        ready=ready,
        inflight=loads.inflight(backend.id),
    )
