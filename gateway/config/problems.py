"""What is wrong with a file, collected: all of it is said at once."""

from gateway.config.source import Place, Source


class Problems:
    """The problems of one file so far."""

    def __init__(self, source: Source) -> None:
        self.found: list[str] = []
        self._source = source

    def say(self, place: Place, why: str) -> None:
        """Note one problem at a key."""
        self.found.append(self._source.problem(place, why))
