"""The admin API's part about LoRA adapters: which there are, load one, unload one."""

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.control.lora_changes import MAX_PATH, LoraChanges, Told


class AdapterView(BaseModel):
    """One adapter, and the backends that hold it by version of its model."""

    name: str
    path: str
    versions: dict[int, list[str]]


class NewAdapter(BaseModel):
    """An adapter to load. `path` is as the backends see it; `version`: there alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=128, examples=["sql"])]
    path: Annotated[str, Field(min_length=1, max_length=MAX_PATH, examples=["/adapters/sql"])]
    version: Annotated[int, Field(ge=0)] | None = None


class ToldView(BaseModel):
    """What became of it at one backend, in its own words."""

    backend: str
    version: int
    ok: bool
    detail: str


class ChangeView(BaseModel):
    """What became of a change: `ok` if every backend did it."""

    name: str
    ok: bool
    backends: list[ToldView]


_FAILED: dict[int | str, dict[str, Any]] = {
    502: {"model": ChangeView, "description": "some backend did not do it; `backends` says why"}
}
_PATH = "/api/models/{name:path}/adapters"


def adapter_routes(changes: LoraChanges) -> APIRouter:
    """Return the routes; they must stand before those that take any path as a model's name."""
    router = APIRouter(tags=["LoRA adapters"])

    @router.get(_PATH, summary="The LoRA adapters of a model")
    async def adapters(name: str) -> list[AdapterView]:
        """Show which adapters the model's backends hold; each is a model by its own name."""
        return [
            AdapterView(
                name=held.name,
                path=held.path,
                versions={number: list(ids) for number, ids in held.versions.items()},
            )
            for held in changes.held(name)
        ]

    @router.post(_PATH, summary="Load a LoRA adapter", responses=_FAILED)
    async def load(name: str, adapter: NewAdapter, response: Response) -> ChangeView:
        """Load it on all backends of the model; a backend that has it already is left alone.

        The next request finds it. Ask again after a failure: what is done is not done twice.
        """
        told = await changes.load(name, adapter.name, adapter.path, adapter.version)
        return _changed(adapter.name, told, response)

    @router.delete(_PATH + "/{adapter:path}", summary="Unload a LoRA adapter", responses=_FAILED)
    async def unload(
        name: str, adapter: str, response: Response, version: int | None = None
    ) -> ChangeView:
        """Unload it from every backend that holds it, or from those of one version."""
        return _changed(adapter, await changes.unload(name, adapter, version), response)

    return router


def _changed(name: str, told: list[Told], response: Response) -> ChangeView:
    good = all(one.good for one in told)
    if not good:
        response.status_code = 502
    backends = [
        ToldView(backend=one.backend, version=one.version, ok=one.good, detail=one.words)
        for one in told
    ]
    return ChangeView(name=name, ok=good, backends=backends)
