"""How the gateway's log looks: one line an event, on standard error."""

import logging

# The server's words for what is meant: a stream that was cut, a stranger's bytes that are no HTTP.
_MEANT = frozenset(
    {
        "ASGI callable returned without completing response.",
        "Invalid HTTP request received.",
    }
)
_FORMAT = "%(asctime)s %(levelname)s {}%(name)s: %(message)s"


def configure(level: str, process: str = "") -> None:
    """Set the process's logging up. Libraries speak only when something is wrong.

    `process` stands in every line, where there are several.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT.format(f"[{process}] " if process else "")))
    handler.addFilter(lambda record: record.getMessage() not in _MEANT)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("isthmus").setLevel(level.upper())
