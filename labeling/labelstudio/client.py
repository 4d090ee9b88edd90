"""Label Studio's REST API, as far as we use it: typed errors, both kinds of token, bounded waiting."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx
from django.conf import settings

from labeling.labelstudio.errors import LabelStudioMissing, LabelStudioRefused, LabelStudioUnavailable

Json = dict[str, Any]
PAGE_SIZE = 100
# An import of a batch with its predictions takes seconds on a busy server; one big predictions request 13 s per 10k.
READ_SECONDS = 120.0


class Client:
    """One conversation with Label Studio. Use it as a context manager.

    Args:
        url: Base address; the setting `LABEL_STUDIO_URL` if not given.
        token: A legacy token (40 hex digits) or a personal access token (a JWT, exchanged for short-lived access
            tokens as needed); the setting `LABEL_STUDIO_TOKEN` if not given.

    Every method raises `LabelStudioUnavailable` when the server does not answer or refuses the token,
    `LabelStudioMissing` for what does not exist and `LabelStudioRefused` for a request it declines.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, read_seconds: float = READ_SECONDS) -> None:
        self.url = (url or settings.LABEL_STUDIO_URL).rstrip("/")
        self._token = settings.LABEL_STUDIO_TOKEN if token is None else token
        self._access = ""
        self.server_time: datetime | None = None
        timeout = httpx.Timeout(read_seconds, connect=5.0)
        self._http = httpx.Client(base_url=self.url, timeout=timeout, transport=httpx.HTTPTransport(retries=1))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # --- Projects ------------------------------------------------------------------------------------------------
    def version(self) -> str:
        """The server's version, e.g. `1.23.2`."""
        return str(self._object("GET", "/api/version").get("release", "unknown"))

    def whoami(self) -> Json:
        """The account that our token belongs to."""
        return self._object("GET", "/api/current-user/whoami")

    def projects(self) -> Iterator[Json]:
        """All projects, with id, title and description."""
        page = 1
        while True:
            answer = self._object(
                "GET",
                "/api/projects/",
                params={"page": page, "page_size": PAGE_SIZE, "include": "id,title,description"},
            )
            results = answer.get("results", [])
            yield from results
            if not answer.get("next"):
                return
            page += 1

    def project(self, project: int) -> Json:
        """One project in full."""
        return self._object("GET", f"/api/projects/{project}/")

    def create_project(self, fields: Json) -> Json:
        """Create a project."""
        return self._object("POST", "/api/projects/", content=fields)

    def change_project(self, project: int, fields: Json) -> Json:
        """Change some of a project's fields."""
        return self._object("PATCH", f"/api/projects/{project}/", content=fields)

    # --- Tasks ---------------------------------------------------------------------------------------------------
    def import_tasks(self, project: int, tasks: Sequence[Json]) -> Json:
        """Import tasks with their predictions; the answer names `task_ids` in the order given."""
        return self._object(
            "POST", f"/api/projects/{project}/import", params={"return_task_ids": "true"}, content=list(tasks)
        )

    def tasks(
        self,
        project: int,
        *,
        changed_since: datetime | None = None,
        created_since: datetime | None = None,
        after_id: int = 0,
        full: bool = True,
    ) -> Iterator[Json]:
        """A project's tasks in the order of their ids, with annotations and predictions if `full`.

        Walks by id, not by page number: tasks that are deleted or changed meanwhile cannot hide others.
        """
        since = [("updated_at", changed_since), ("created_at", created_since)]
        filters = [_filter(name, "Datetime", _timestamp(value)) for name, value in since if value is not None]
        while True:
            query = {
                "filters": {"conjunction": "and", "items": [*filters, _filter("id", "Number", after_id)]},
                "ordering": ["tasks:id"],
            }
            params = {"project": project, "page_size": PAGE_SIZE, "query": json.dumps(query), "resolve_uri": "false"}
            answer = self._object("GET", "/api/tasks/", params=params | ({"fields": "all"} if full else {}))
            page = answer.get("tasks", [])
            yield from page
            if len(page) < PAGE_SIZE:
                return
            after_id = page[-1]["id"]

    def has_task(self, task: int) -> bool:
        """Whether a task exists."""
        return self._exists(f"/api/tasks/{task}/")

    def delete_task(self, task: int) -> None:
        """Delete one task."""
        self._call("DELETE", f"/api/tasks/{task}/")

    def has_annotation(self, annotation: int) -> bool:
        """Whether an annotation exists."""
        return self._exists(f"/api/annotations/{annotation}/")

    # --- Predictions ---------------------------------------------------------------------------------------------
    def import_predictions(self, project: int, predictions: Sequence[Json]) -> int:
        """Add predictions (each with its `task` id) to existing tasks; how many Label Studio took."""
        answer = self._object("POST", f"/api/projects/{project}/import/predictions", content=list(predictions))
        return int(answer.get("created", 0))

    def delete_predictions(self, project: int, tasks: Sequence[int]) -> None:
        """Delete all predictions of some tasks."""
        selected = {"selectedItems": {"all": False, "included": list(tasks)}}
        params = {"id": "delete_tasks_predictions", "project": project}
        self._call("POST", "/api/dm/actions/", params=params, content=selected)

    # --- Views, webhooks, ML backends, people ----------------------------------------------------------------------
    def views(self, project: int) -> list[Json]:
        """A project's Data Manager tabs."""
        return self._list("GET", "/api/dm/views/", params={"project": project})

    def create_view(self, project: int, data: Json) -> Json:
        """Add a Data Manager tab."""
        return self._object("POST", "/api/dm/views/", content={"project": project, "data": data})

    def webhooks(self, project: int) -> list[Json]:
        """A project's webhooks."""
        return self._list("GET", "/api/webhooks/", params={"project": project})

    def create_webhook(self, fields: Json) -> Json:
        """Create a webhook."""
        return self._object("POST", "/api/webhooks/", content=fields)

    def change_webhook(self, webhook: int, fields: Json) -> Json:
        """Change a webhook. Always send `actions`: without them Label Studio empties the list."""
        return self._object("PATCH", f"/api/webhooks/{webhook}/", content=fields)

    def delete_webhook(self, webhook: int) -> None:
        """Delete a webhook."""
        self._call("DELETE", f"/api/webhooks/{webhook}/")

    def ml_backends(self, project: int) -> list[Json]:
        """A project's ML backends. Label Studio asks each for its health first."""
        return self._list("GET", "/api/ml/", params={"project": project})

    def create_ml_backend(self, fields: Json) -> Json:
        """Connect an ML backend, which must be up."""
        return self._object("POST", "/api/ml/", content=fields)

    def change_ml_backend(self, backend: int, fields: Json) -> Json:
        """Change an ML backend; `url` and `project` are required."""
        return self._object("PATCH", f"/api/ml/{backend}/", content=fields)

    def people(self) -> dict[int, str]:
        """Label Studio's users: id → e-mail address."""
        return {user["id"]: user["email"] for user in self._list("GET", "/api/users/")}

    # --- How it is done --------------------------------------------------------------------------------------------
    def _exists(self, path: str) -> bool:
        try:
            self._call("GET", path)
        except LabelStudioMissing:
            return False
        return True

    def _object(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, content: Any = None) -> Json:
        answer = self._json(self._call(method, path, params=params, content=content))
        if not isinstance(answer, dict):
            raise LabelStudioUnavailable(f"{self.url}{path} answered with something unexpected: {str(answer)[:200]}")
        return answer

    def _list(self, method: str, path: str, *, params: Mapping[str, Any] | None = None) -> list[Json]:
        answer = self._json(self._call(method, path, params=params))
        if isinstance(answer, dict) and isinstance(answer.get("results"), list):
            answer = answer["results"]
        if not isinstance(answer, list):
            raise LabelStudioUnavailable(f"{self.url}{path} answered with something unexpected: {str(answer)[:200]}")
        return answer

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise LabelStudioUnavailable(
                f"{response.request.url} did not answer in JSON; is LABEL_STUDIO_URL ({self.url}) really Label Studio?"
            ) from error

    def _call(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, content: Any = None
    ) -> httpx.Response:
        response = self._send(method, path, self._authorization(), params, content)
        if response.status_code == 401 and self._access:
            self._access = ""  # it lives five minutes
            response = self._send(method, path, self._authorization(), params, content)
        return self._checked(response)

    def _send(
        self, method: str, path: str, authorization: str, params: Mapping[str, Any] | None, content: Any
    ) -> httpx.Response:
        headers = {"Authorization": authorization} if authorization else {}
        try:
            response = self._http.request(method, path, params=params, json=content, headers=headers)
        except httpx.TimeoutException as error:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} did not answer {method} {path} in time; try again when it is less busy."
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} cannot be reached ({error}); start it or correct LABEL_STUDIO_URL."
            ) from error
        if date := response.headers.get("Date"):
            self.server_time = parsedate_to_datetime(date)
        return response

    def _authorization(self) -> str:
        if not self._token:
            raise LabelStudioUnavailable(
                "No token for Label Studio: put one from its Account & Settings page into LABEL_STUDIO_TOKEN."
            )
        if self._token.count(".") != 2:
            return f"Token {self._token}"
        if not self._access:
            response = self._checked(self._send("POST", "/api/token/refresh", "", None, {"refresh": self._token}))
            self._access = str(self._json(response).get("access", ""))
        return f"Bearer {self._access}"

    def _checked(self, response: httpx.Response) -> httpx.Response:
        request, status = response.request, response.status_code
        what = f"{request.method} {request.url.path}"
        if response.is_success:
            return response
        if status == 403:
            raise LabelStudioRefused(
                f"Label Studio forbids {what}: {_detail(response)}. If it speaks of a reserved network address, allow "
                "ours in its settings (USER_ADDITIONAL_BANNED_SUBNETS); else use a token with more rights."
            )
        if status == 401:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} refuses our token ({_detail(response)}); "
                "put a valid one from its Account & Settings page into LABEL_STUDIO_TOKEN."
            )
        if status == 404:
            raise LabelStudioMissing(f"Label Studio at {self.url} has no {request.url.path} ({_detail(response)}).")
        if status >= 500 or status == 429:
            raise LabelStudioUnavailable(f"Label Studio at {self.url} failed at {what} with {status}; see its log.")
        raise LabelStudioRefused(f"Label Studio declined {what} with {status}: {_detail(response)}")


def _filter(name: str, kind: str, value: Any) -> Json:
    return {"filter": f"filter:tasks:{name}", "operator": "greater", "type": kind, "value": value}


def _timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _detail(response: httpx.Response) -> str:
    try:
        answer = response.json()
    except ValueError:
        return response.text[:200] or response.reason_phrase
    if isinstance(answer, dict):
        problems = answer.get("validation_errors") or answer.get("detail") or answer
        return (problems if isinstance(problems, str) else json.dumps(problems))[:1000]
    return json.dumps(answer)[:1000]
