"""Label Studio's REST API, as far as we use it, by its own SDK; answers are the server's JSON as it came.

Own requests are made only where the SDK (2.1.2) has no method, or a wrong one for Label Studio Community (1.23.2); each
says why. Every public method meets the real server in tests/labeling/test_client.py.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from labeling.labelstudio.connection import READING, Connection, Json

PAGE_SIZE = 100


class Client(Connection):
    """What we ask of Label Studio. Use it as a context manager; see `Connection` for its address and its errors."""

    # --- The server and its people -----------------------------------------------------------------------------------
    def version(self) -> str:
        """The server's version, e.g. `1.23.2`."""
        answer = self._ask(lambda sdk: sdk.versions.with_raw_response.get(request_options=READING))
        return str(self._mapping(answer.response).get("release", "unknown"))

    def whoami(self) -> Json:
        """The account that our token belongs to."""
        answer = self._ask(lambda sdk: sdk.users.with_raw_response.whoami(request_options=READING))
        return self._mapping(answer.response)

    def people(self) -> dict[int, str]:
        """Label Studio's users: id → e-mail address."""
        answer = self._ask(lambda sdk: sdk.users.with_raw_response.list(request_options=READING))
        return {user["id"]: user["email"] for user in self._rows(answer.response)}

    # --- Projects ----------------------------------------------------------------------------------------------------
    def projects(self) -> Iterator[Json]:
        """All projects, with id, title and description.

        An own request: the SDK's pager asks for one page more than there is, to which Label Studio answers 404.
        """
        page = 1
        while True:
            params = {"page": page, "page_size": PAGE_SIZE, "include": "id,title,description"}
            answer = self._object("GET", "/api/projects/", params=params)
            yield from answer.get("results", [])
            if not answer.get("next"):
                return
            page += 1

    def project(self, project: int) -> Json:
        """One project in full."""
        answer = self._ask(lambda sdk: sdk.projects.with_raw_response.get(project, request_options=READING))
        return self._mapping(answer.response)

    def create_project(self, fields: Json) -> Json:
        """Create a project."""
        return self._mapping(self._ask(lambda sdk: sdk.projects.with_raw_response.create(**fields)).response)

    def change_project(self, project: int, fields: Json) -> Json:
        """Change some of a project's fields."""
        return self._mapping(self._ask(lambda sdk: sdk.projects.with_raw_response.update(project, **fields)).response)

    # --- Tasks and annotations ---------------------------------------------------------------------------------------
    def import_tasks(self, project: int, tasks: Sequence[Json]) -> Json:
        """Import tasks with their predictions; the answer names `task_ids` in the order given."""
        answer = self._ask(
            lambda sdk: sdk.projects.with_raw_response.import_tasks(
                project,
                request=list(tasks),  # type: ignore[arg-type]  # JSON as it is; the SDK's models send the same
                return_task_ids=True,
            )
        )
        return self._mapping(answer.response)

    def tasks(
        self,
        project: int,
        *,
        changed_since: datetime | None = None,
        created_since: datetime | None = None,
        after_id: int = 0,
        only: Sequence[int] = (),
        full: bool = True,
    ) -> Iterator[Json]:
        """A project's tasks in the order of their ids, with annotations and predictions if `full`.

        With `only`, those of these numbers that the project has.

        Walks by id, not by page number: tasks that are deleted or changed meanwhile cannot hide others.

        An own request: the SDK's listing gives its own models only, not what annotators submitted as it came, walks by
        page number, and asks for a page too many.
        """
        since = [("updated_at", changed_since), ("created_at", created_since)]
        filters = [_filter(name, "Datetime", _timestamp(value)) for name, value in since if value is not None]
        while True:
            query: Json = {
                "filters": {"conjunction": "and", "items": [*filters, _filter("id", "Number", after_id)]},
                "ordering": ["tasks:id"],
            }
            if only:
                query["selectedItems"] = {"all": False, "included": list(only)}
            params = {"project": project, "page_size": PAGE_SIZE, "query": json.dumps(query), "resolve_uri": "false"}
            page = self._object("GET", "/api/tasks/", params=params | ({"fields": "all"} if full else {}))
            found = page.get("tasks", [])
            yield from found
            if len(found) < PAGE_SIZE:
                return
            after_id = found[-1]["id"]

    def task(self, task: int) -> Json:
        """One task in full, with its annotations and predictions."""
        answer = self._ask(lambda sdk: sdk.tasks.with_raw_response.get(str(task), request_options=READING))
        return self._mapping(answer.response)

    def change_task(self, task: int, data: Json) -> Json:
        """Replace a task's data."""
        return self._mapping(self._ask(lambda sdk: sdk.tasks.with_raw_response.update(str(task), data=data)).response)

    def delete_task(self, task: int) -> None:
        """Delete one task."""
        self._ask(lambda sdk: sdk.tasks.delete(str(task)))

    def annotation(self, annotation: int) -> Json:
        """One annotation in full. Of the prediction it started from only the id, `parent_prediction`."""
        answer = self._ask(lambda sdk: sdk.annotations.with_raw_response.get(annotation, request_options=READING))
        return self._mapping(answer.response)

    # --- Predictions -------------------------------------------------------------------------------------------------
    def prediction(self, prediction: int) -> Json:
        """One prediction in full: its task, version and shapes."""
        answer = self._ask(lambda sdk: sdk.predictions.with_raw_response.get(prediction, request_options=READING))
        return self._mapping(answer.response)

    def import_predictions(self, project: int, predictions: Sequence[Json]) -> int:
        """Add predictions (each with its `task` id) to existing tasks; how many Label Studio took."""
        answer = self._ask(
            lambda sdk: sdk.projects.with_raw_response.import_predictions(
                project,
                request=list(predictions),  # type: ignore[arg-type]  # JSON as it is; the SDK's models send the same
            )
        )
        return int(self._mapping(answer.response).get("created", 0))

    def predictions(self, task: int) -> list[Json]:
        """A task's predictions in full."""
        answer = self._ask(lambda sdk: sdk.predictions.with_raw_response.list(task=task, request_options=READING))
        return self._rows(answer.response)

    def delete_prediction(self, prediction: int) -> None:
        """Delete one prediction. An annotation that starts from it can then no longer be submitted."""
        self._ask(lambda sdk: sdk.predictions.delete(prediction))

    # --- Views, webhooks, ML backends --------------------------------------------------------------------------------
    def views(self, project: int) -> list[Json]:
        """A project's Data Manager tabs."""
        answer = self._ask(lambda sdk: sdk.views.with_raw_response.list(project=project, request_options=READING))
        return self._rows(answer.response)

    def create_view(self, project: int, data: Json) -> Json:
        """Add a Data Manager tab."""
        answer = self._ask(lambda sdk: sdk.views.with_raw_response.create(project=project, data=data))  # type: ignore[arg-type]
        return self._mapping(answer.response)

    def change_view(self, view: int, project: int, data: Json) -> Json:
        """Replace what a Data Manager tab shows and how."""
        answer = self._ask(lambda sdk: sdk.views.with_raw_response.update(str(view), project=project, data=data))  # type: ignore[arg-type]
        return self._mapping(answer.response)

    def webhooks(self, project: int) -> list[Json]:
        """A project's webhooks."""
        answer = self._ask(
            lambda sdk: sdk.webhooks.with_raw_response.list(project=str(project), request_options=READING)
        )
        return self._rows(answer.response)

    def create_webhook(self, fields: Json) -> Json:
        """Create a webhook."""
        return self._mapping(self._ask(lambda sdk: sdk.webhooks.with_raw_response.create(**fields)).response)

    def change_webhook(self, webhook: int, fields: Json) -> Json:
        """Change a webhook. Always give `actions`: without them Label Studio empties the list."""
        return self._mapping(self._ask(lambda sdk: sdk.webhooks.with_raw_response.update(webhook, **fields)).response)

    def delete_webhook(self, webhook: int) -> None:
        """Delete a webhook."""
        self._ask(lambda sdk: sdk.webhooks.delete(webhook))

    def ml_backends(self, project: int) -> list[Json]:
        """A project's ML backends. Label Studio asks each for its health first."""
        answer = self._ask(lambda sdk: sdk.ml.with_raw_response.list(project=project, request_options=READING))
        return self._rows(answer.response)

    def create_ml_backend(self, fields: Json) -> Json:
        """Connect an ML backend, which must be up."""
        return self._mapping(self._ask(lambda sdk: sdk.ml.with_raw_response.create(**fields)).response)

    def change_ml_backend(self, backend: int, fields: Json) -> Json:
        """Change an ML backend; `url` and `project` are required."""
        return self._mapping(self._ask(lambda sdk: sdk.ml.with_raw_response.update(backend, **fields)).response)


def _filter(name: str, kind: str, value: Any) -> Json:
    return {"filter": f"filter:tasks:{name}", "operator": "greater", "type": kind, "value": value}


def _timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
