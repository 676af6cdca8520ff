"""vLLM, and whatever else serves its HTTP API."""

from contextlib import AbstractAsyncContextManager

from adapters.probing import ProbeFailedError, Prober
from adapters.transport import HttpClients
from gateway.types import Answer, Backend, Call, Family, Form, Seen, State, Timeouts


class Vllm:
    """`types.Adapter` for vLLM: each name that it serves is a model, none has versions."""

    family = Family.LLM
    address_keys = {"url": Form.OPENAI}  # noqa: RUF012 - a table, read only
    timeouts = Timeouts(connect=1.0, first_piece=60.0, idle=30.0, total=600.0)

    def __init__(self) -> None:
        self._http = HttpClients()
        self._prober = Prober()

    def open(
        self, backend: Backend, call: Call, timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a call over HTTP/1.1. Raises `UpstreamError`."""
        client = self._http.to(backend.addresses[Form.OPENAI], backend.tls)
        return client.exchange(call.message, backend.headers, timeouts, call.deadline, call.stream)

    async def probe(self, backend: Backend, served: frozenset[str]) -> Seen:
        """Ask `/health`, whose 200 says that the engine lives, then which names are served."""
        url = backend.addresses[Form.OPENAI]
        try:
            await self._prober.get(backend, f"{url}/health")
            listing = await self._prober.get_json(backend, f"{url}/v1/models")
            names = [str(card["id"]) for card in listing["data"]]
        except ProbeFailedError as error:
            return Seen(False, str(error))
        except (KeyError, TypeError):
            return Seen(False, f"{url}/v1/models answered no list of models")
        return Seen(True, served={name: {None: State.AVAILABLE} for name in names})

    async def close(self) -> None:
        """Close every connection."""
        self._http.close()
        await self._prober.close()


ADAPTER = Vllm
