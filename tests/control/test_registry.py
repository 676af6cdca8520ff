"""The registry tells those who serve by its Snapshot, and waits for them where it promises to."""

import asyncio
from pathlib import Path

from support.configuring import loaded

from adapters.testing import InMemory
from gateway.control.registry import Registry
from gateway.types import Seen

CHAT = "models: {chat: {adapter: vllm, backends: [http://a:1]}}"


def test_looking_again_ends_once_all_know_what_was_seen(tmp_path: Path) -> None:
    async def run() -> None:
        configuration = loaded(tmp_path, CHAT)
        adapter, all_know = InMemory(), asyncio.Event()
        told: list[tuple[str, bool]] = []
        asked = asyncio.Event()

        def changed(backend: str, seen: Seen) -> None:
            told.append((backend, seen.up))

        async def spread() -> None:
            asked.set()
            await all_know.wait()

        registry = Registry(configuration, {"vllm": adapter}, changed, spread)
        (model,) = configuration.models
        looking = asyncio.create_task(registry.look_again(model.backends))
        await asyncio.wait_for(asked.wait(), 5)
        assert told == [("http://a:1", True)]
        assert registry.snapshot().models["chat"].versions[1].ready == model.backends
        assert not looking.done()
        all_know.set()
        await asyncio.wait_for(looking, 5)

    asyncio.run(run())
