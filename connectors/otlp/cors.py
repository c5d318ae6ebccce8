"""Cross-Origin Resource Sharing: which web pages a browser lets send here (Fetch standard, "CORS protocol")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from connectors.otlp.settings import CorsSettings

__all__ = ["Cors"]

_USUAL_HEADERS = ("content-type", "content-encoding")


class Cors:
    """Answers of a receiver to browsers.

    >>> cors = Cors(CorsSettings(allowed_origins=("https://*.example.com",)))
    >>> cors.headers({"Origin": "https://shop.example.com"})["Access-Control-Allow-Origin"]
    'https://shop.example.com'
    >>> cors.headers({"Origin": "https://elsewhere.net"})
    {'Vary': 'Origin'}
    """

    def __init__(self, settings: CorsSettings, *, headers: Iterable[str] = ()) -> None:
        """Prepare.

        Args:
            settings: Who may send.
            headers: Names of headers that the receiver itself asks for.
        """
        patterns = (re.escape(origin).replace(r"\*", ".*") for origin in settings.allowed_origins)
        self._origins = re.compile("|".join(patterns), re.IGNORECASE)
        self._headers = {name.lower() for name in (*_USUAL_HEADERS, *headers, *settings.allowed_headers)}
        self._max_age_s = round(settings.max_age.total_seconds())

    def headers(self, request: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of the answer to a request with these headers, whatever its status.

        Credentials are allowed because `navigator.sendBeacon`, which SDKs use, always sends a page's cookies along; the
        receiver looks at none. For the same reason the origin is named and never ``*``.
        """
        origin = request.get("Origin")
        if origin is None or not self._origins.fullmatch(origin):
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "Retry-After",
        }

    def preflight(self, request: Mapping[str, str]) -> dict[str, str] | None:
        """Return the headers of the answer to a browser that asks before it sends; None when the page may not send."""
        allowed = self.headers(request)
        if "Access-Control-Allow-Origin" not in allowed:
            return None
        wanted = [name.strip() for name in request.get("Access-Control-Request-Headers", "").split(",")]
        known = [name for name in wanted if name and ("*" in self._headers or name.lower() in self._headers)]
        del allowed["Access-Control-Expose-Headers"]
        return {
            **allowed,
            "Vary": "Origin, Access-Control-Request-Headers",
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": ", ".join(known or sorted(self._headers - {"*"})),
            "Access-Control-Max-Age": str(self._max_age_s),
        }
