"""Five routes, as Label Studio calls them.

It must never return another number of results than tasks (Label Studio would drop them), or a score that is not a
number (annotators could not open the task). On errors it returns an error status: Label Studio then opens the task
without a prediction.
"""

import hmac
import json
from base64 import b64decode
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import structlog
from django.core.signals import request_finished, request_started
from django.db import Error as DatabaseError
from django.db import connection

from labeling.labelstudio.projects import ML_BACKEND_USER
from labeling.labelstudio.secrets import ml_backend_secret
from ml_backend.server import MAX_BODY_BYTES
from ml_backend.server.predictions import known_versions, model_version, predict

log = structlog.get_logger(__name__)

Environ = dict[str, Any]
Answer = dict[str, Any]


class HttpProblem(Exception):
    """A request that is answered with an error status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application."""
    request_started.send(sender=application, environ=environ)  # Django closes broken or old connections
    try:
        status, answer = HTTPStatus.OK, _route(environ)
    except HttpProblem as problem:
        status, answer = problem.status, {"detail": str(problem)}
    except DatabaseError as error:
        log.warning("the database does not answer", why=str(error).strip())
        status, answer = HTTPStatus.SERVICE_UNAVAILABLE, {"detail": "The database does not answer."}
    except Exception:
        log.exception("request failed", path=environ.get("PATH_INFO"))
        status, answer = HTTPStatus.INTERNAL_SERVER_ERROR, {"detail": "The request failed: see the log."}
    finally:
        request_finished.send(sender=application)
    body = json.dumps(answer, allow_nan=False).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", 'Basic realm="ThawLoop"'))
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]


def _route(environ: Environ) -> Answer:
    path, method = environ.get("PATH_INFO", "").rstrip("/") or "/", environ["REQUEST_METHOD"]
    wanted, handler, guarded = _ROUTES.get(path, ("", None, False))
    if handler is None:
        raise HttpProblem(HTTPStatus.NOT_FOUND, f"There is no {path[:100]}; there are {', '.join(_ROUTES)}.")
    if method != wanted and not (wanted == "GET" and method == "HEAD"):
        raise HttpProblem(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} accepts only {wanted}.")
    if guarded:
        _check_login(environ.get("HTTP_AUTHORIZATION", ""))
    return handler(environ)


def _health(environ: Environ) -> Answer:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return {"status": "UP", "model_class": "ThawLoop"}


def _setup(environ: Environ) -> Answer:
    return {"model_version": model_version(_project(_body(environ)))}


def _predict(environ: Environ) -> Answer:
    body = _body(environ)
    tasks = body.get("tasks")
    if not isinstance(tasks, list):
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "The body has no list of `tasks`.")
    return {"results": predict(_project(body), tasks)}


def _webhook(environ: Environ) -> Answer:
    """Acknowledge only: the campaign's policy decides on retraining, and the platform has its own webhook."""
    return {"detail": "Received; this server does not process events."}


def _versions(environ: Environ) -> Answer:
    return {"versions": known_versions(), "message": "stored predictions"}


# Label Studio sends credentials with setup and predict only.
_ROUTES: dict[str, tuple[str, Callable[[Environ], Answer], bool]] = {
    "/health": ("GET", _health, False),
    "/setup": ("POST", _setup, True),
    "/predict": ("POST", _predict, True),
    "/webhook": ("POST", _webhook, False),
    "/versions": ("GET", _versions, False),
}


def _check_login(authorization: str) -> None:
    kind, _, encoded = authorization.partition(" ")
    try:
        given = b64decode(encoded, validate=True) if kind.lower() == "basic" else b""
    except ValueError:
        given = b""
    if not hmac.compare_digest(given, f"{ML_BACKEND_USER}:{ml_backend_secret()}".encode()):
        raise HttpProblem(HTTPStatus.UNAUTHORIZED, "Log in with the user and password that Label Studio was given.")


def _body(environ: Environ) -> dict[str, Any]:
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError as error:
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "Content-Length is not a number.") from error
    if length > MAX_BODY_BYTES:
        raise HttpProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {MAX_BODY_BYTES:,} bytes.")
    try:
        body = json.loads(environ["wsgi.input"].read(max(length, 0)))
    except (ValueError, RecursionError) as error:
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from error
    if not isinstance(body, dict):
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "The body is not a JSON object.")
    return body


def _project(body: dict[str, Any]) -> int | None:
    """Label Studio names a project `<id>.<moment of creation>`."""
    number = str(body.get("project", "")).partition(".")[0]
    return int(number) if number.isdecimal() and len(number) < 10 else None
