"""A small WSGI application for the tests of the server: says what it received, and takes its time when asked to."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with what came in; `/slow` waits two seconds first."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(2)
    body = environ["wsgi.input"].read()
    names = ("REQUEST_METHOD", "PATH_INFO", "REMOTE_ADDR", "wsgi.url_scheme", "HTTP_X_FORWARDED_PROTO")
    answer: dict[str, Any] = {name: environ.get(name) for name in names}
    answer |= {"length": len(body), "digest": hashlib.sha256(body).hexdigest()}
    text = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
    return [text]
