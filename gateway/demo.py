"""stub"""

from gateway.app import Gateway


class Demo:
    good = True

    def __init__(self, stay: bool) -> None: ...
    async def run(self, g: Gateway) -> None: ...
