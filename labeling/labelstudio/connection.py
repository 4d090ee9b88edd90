"""The connection to Label Studio: its own SDK, with timeouts, and our sentences for its errors."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx
from django.conf import settings

from labeling.labelstudio.errors import LabelStudioMissing, LabelStudioRefused, LabelStudioUnavailable
from thawloop.core.foreign import one_line

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase

Json = dict[str, Any]
Answer = TypeVar("Answer")
# An import of a batch with its predictions takes seconds on a busy server; one big predictions request 13 s per 10k.
READ_SECONDS = 120.0
CONNECT_SECONDS = 5.0
# Reading twice is harmless. Writing twice is not: a request whose answer was lost may have been carried out.
READING: Any = {"max_retries": 1}


class Connection:
    """A connection to Label Studio. Use it as a context manager.

    The SDK is loaded at the first request: it costs a second, and most processes never ask Label Studio anything.
    Its plain client is used, not `LabelStudio`, which loads pandas for conversions that we have no use for.

    Args:
        url: Base address; the setting `LABEL_STUDIO_URL` if not given.
        token: A legacy token (40 hex digits) or a personal access token (a JWT, which the SDK exchanges for
            short-lived access tokens as needed); the setting `LABEL_STUDIO_TOKEN` if not given.
        read_seconds: How long to wait for an answer.

    Attributes:
        server_time: The server's clock at its last answer, to the second.

    Every request raises `LabelStudioUnavailable` when the server does not answer or refuses the token,
    `LabelStudioMissing` for what does not exist and `LabelStudioRefused` for what it declines.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, read_seconds: float = READ_SECONDS) -> None:
        self.url = (url or settings.LABEL_STUDIO_URL).rstrip("/")
        self.server_time: datetime | None = None
        self._token = settings.LABEL_STUDIO_TOKEN if token is None else token
        self._sdk: LabelStudioBase | None = None
        self._asked = ""
        self._http = httpx.Client(
            timeout=httpx.Timeout(read_seconds, connect=CONNECT_SECONDS),
            transport=httpx.HTTPTransport(retries=1),  # of connecting only
            event_hooks={"request": [self._note_request], "response": [self._note_time]},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def _ask(self, request: "Callable[[LabelStudioBase], Answer]") -> Answer:
        """The answer to a request by the SDK."""
        from label_studio_sdk.core.api_error import ApiError

        with self._sentences():
            try:
                return request(self._connected())
            except ApiError as error:
                if error.status_code != httpx.codes.UNAUTHORIZED or not _is_personal(self._token):
                    raise
            self._sdk = None  # its access token lives five minutes by the server's clock, not by ours
            return request(self._connected())

    def _call(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, content: Any = None
    ) -> httpx.Response:
        """A request that the SDK has no method for, sent as it sends its own."""
        return self._ask(lambda sdk: _send(sdk, method, path, params, content))

    def _object(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, content: Any = None) -> Json:
        return self._mapping(self._call(method, path, params=params, content=content))

    def _connected(self) -> "LabelStudioBase":
        if not self._token:
            raise LabelStudioUnavailable(
                "No token for Label Studio: put one from its Account & Settings page into LABEL_STUDIO_TOKEN."
            )
        if self._sdk is None:
            from label_studio_sdk.base_client import LabelStudioBase

            # The slash keeps the path of an address like https://example.org/labels in the SDK's token exchange.
            self._sdk = LabelStudioBase(
                base_url=f"{self.url}/", api_key=self._token, httpx_client=self._http, max_retries=0
            )
        return self._sdk

    def _mapping(self, answer: httpx.Response) -> Json:
        """An answer that must be a JSON object, as it came."""
        found = self._json(answer)
        if not isinstance(found, dict):
            raise self._unexpected(answer.text)
        return found

    def _rows(self, answer: httpx.Response) -> list[Json]:
        """An answer that must be a JSON list, as it came; some lists are paginated in some versions."""
        found = self._json(answer)
        if isinstance(found, dict):
            found = found.get("results")
        if not isinstance(found, list):
            raise self._unexpected(answer.text)
        return found

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise self._unexpected(answer.text) from error

    def _note_request(self, request: httpx.Request) -> None:
        self._asked = f"{request.method} {request.url.path}"

    def _note_time(self, response: httpx.Response) -> None:
        if date := response.headers.get("Date"):
            self.server_time = parsedate_to_datetime(date)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn the SDK's and httpx's errors into ours."""
        from label_studio_sdk.core.api_error import ApiError
        from label_studio_sdk.core.parse_error import ParsingError

        try:
            yield
        except ApiError as error:
            raise self._declined(error.status_code or 0, error.body) from error
        except (ParsingError, json.JSONDecodeError) as error:
            raise self._unexpected(getattr(error, "body", error)) from error
        except httpx.TimeoutException as error:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} did not answer {self._asked} in time; try again when it is less busy."
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} cannot be reached ({one_line(error)}); start it or correct "
                "LABEL_STUDIO_URL."
            ) from error

    def _declined(self, status: int, body: Any) -> Exception:
        detail = _detail(body) or httpx.codes.get_reason_phrase(status) or f"status {status}"
        if status < httpx.codes.MULTIPLE_CHOICES:  # success, but the answer is not JSON
            return self._unexpected(body)
        if status == httpx.codes.FORBIDDEN:
            return LabelStudioRefused(
                f"Label Studio forbids {self._asked}: {detail}. If it speaks of a reserved network address, allow "
                "ours in its settings (USER_ADDITIONAL_BANNED_SUBNETS); else use a token with more rights."
            )
        if status == httpx.codes.UNAUTHORIZED:
            return LabelStudioUnavailable(
                f"Label Studio at {self.url} refuses our token ({detail}); "
                "put a valid one from its Account & Settings page into LABEL_STUDIO_TOKEN."
            )
        if status == httpx.codes.NOT_FOUND:
            return LabelStudioMissing(f"Label Studio at {self.url} found nothing at {self._asked} ({detail}).")
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
            return LabelStudioUnavailable(
                f"Label Studio at {self.url} failed at {self._asked} with {status}; see its log."
            )
        return LabelStudioRefused(f"Label Studio declined {self._asked} with {status}: {detail}")

    def _unexpected(self, body: Any) -> LabelStudioUnavailable:
        return LabelStudioUnavailable(
            f"{self.url} answered {self._asked} with something unexpected ({one_line(body, 100) or 'nothing'}); "
            "is LABEL_STUDIO_URL really Label Studio?"
        )


def _send(
    sdk: "LabelStudioBase", method: str, path: str, params: Mapping[str, Any] | None, content: Any
) -> httpx.Response:
    """A request as the SDK sends its own: with its token, relative to its address."""
    from label_studio_sdk.core.api_error import ApiError

    options = READING if method == "GET" else None
    http = sdk._client_wrapper.httpx_client
    response = http.request(path, method=method, params=dict(params or {}), json=content, request_options=options)
    if not response.is_success:
        try:
            body = response.json()
        except ValueError:
            body = response.text
        raise ApiError(status_code=response.status_code, headers=dict(response.headers), body=body)
    return response


def _is_personal(token: str) -> bool:
    """Whether it is a personal access token: a JWT."""
    return token.count(".") == 2


def _detail(body: Any) -> str:
    """What Label Studio says is wrong: the core of its JSON, in one line."""
    if isinstance(body, dict):
        body = body.get("validation_errors") or body.get("detail") or body
    return one_line(body if isinstance(body, str) else json.dumps(body, default=str), 1000)
