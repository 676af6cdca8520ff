"""Cross-origin calls from web pages, for the origins that the configuration names.

Starlette's middleware does it; preflights are answered without a key, as browsers send none.
"""

from typing import Any

from starlette.middleware.cors import CORSMiddleware

_SHOWN = ("x-isthmus-model", "x-isthmus-fallback", "x-request-id", "server-timing", "retry-after")
_SECONDS = 600


def with_cors(app: Any, origins: tuple[str, ...]) -> Any:
    """Return the application for pages of `origins`; as it is where there are none."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=_SHOWN,
        max_age=_SECONDS,
    )
