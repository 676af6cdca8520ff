"""What is wrong with a file, collected: all of it is said at once, in the file's order."""

from gateway.config.source import Place, Source
from gateway.errors import ConfigError

_MOST = 100


class Problems:
    """The problems of one file so far, from those that reading it found."""

    def __init__(self, source: Source) -> None:
        self.found = [*source.problems]
        self._source = source

    def say(self, place: Place, why: str) -> None:
        """Note one problem at a key."""
        self.found.append(self._source.problem(place, why))

    def check(self) -> None:
        """Raise `ConfigError` if there is any problem."""
        if self.found:
            texts = [problem.text for problem in sorted(self.found, key=lambda p: p.line)]
            more = len(texts) - _MOST
            raise ConfigError((*texts[:_MOST], *([f"… and {more} more"] if more > 0 else [])))
