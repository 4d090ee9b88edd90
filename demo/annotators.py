"""Simulated annotators: they sign in to Label Studio, take the next task, correct what is shown, and submit.

They use Label Studio's REST API only, as a browser does, each with an account of their own. `Truth` holds the true
shapes; `Habits` says how well they draw them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Self

import httpx
import numpy as np
from PIL import Image, UnidentifiedImageError

from demo.hands import Correction, Habits, Outline, clipped, correct
from demo.truth import Truth
from labeling.labelstudio.config import VERDICT, anchor_picture, nothing_there
from labeling.labelstudio.regions import ShownInstance, read_result, write_result
from thawloop.campaigns.models import Campaign
from thawloop.catalog.models import Tile
from thawloop.core.errors import Unavailable
from thawloop.core.foreign import one_line

Json = dict[str, Any]
_ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_TIMEOUT = httpx.Timeout(120.0, connect=5.0)


class LabelStudioFailed(Unavailable):
    """Label Studio did not let an annotator work."""


@dataclass(frozen=True)
class Person:
    """Somebody who annotates."""

    email: str
    password: str
    habits: Habits
    skip: float = 0.02


@dataclass(frozen=True)
class DoneTask:
    """What an annotator did with one task."""

    task: int
    tile: str
    skipped: bool
    correction: Correction
    lead_time: float


class Annotator:
    """One person at work in Label Studio.

    Args:
        url: Label Studio's address.
        person: Who.
        truth: What is really on the tiles.
        campaign: What they work on; its Label Studio project exists.
        seed: Of everything this person decides.
    """

    def __init__(self, url: str, person: Person, truth: Truth, campaign: Campaign, seed: int) -> None:
        self.person = person
        self._truth = truth
        self._campaign = campaign
        self._classes = sorted(campaign.classes.values_list("name", flat=True))
        self._picture = anchor_picture(campaign)
        self._rng = np.random.default_rng(seed)
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def sign_in(self, admin_token: str) -> None:
        """Log in; the first time, sign up with the organisation's invitation link.

        Raises:
            LabelStudioFailed: neither works.
        """
        if self._post_form("/user/login/"):
            return
        invitation = self._json("GET", "/api/invite", headers={"Authorization": f"Token {admin_token}"})
        if not self._post_form(str(invitation["invite_url"])):
            raise LabelStudioFailed(
                f"Label Studio at {self._http.base_url} lets {self.person.email} neither log in nor sign up."
            )

    def work(self, *, on_submission: Callable[[DoneTask], None] | None = None) -> list[DoneTask]:
        """Do tasks in the order in which Label Studio serves them, until it has none left for this person.

        Raises:
            LabelStudioFailed: a request fails.
        """
        done = []
        while (submission := self.do_next()) is not None:
            done.append(submission)
            if on_submission is not None:
                on_submission(submission)
        return done

    def do_next(self) -> DoneTask | None:
        """Take the next task of the project and submit it; None when there is none left."""
        project = self._campaign.ls_project_id
        response = self._send("GET", f"/api/projects/{project}/next")
        if response.status_code == 404:
            return None
        task = self._checked(response)
        submission, payload = self._answer(task)
        self._json("POST", f"/api/tasks/{task['id']}/annotations/?project={project}", json=payload)
        return submission

    def _answer(self, task: Json) -> tuple[DoneTask, Json]:
        tile = Tile.objects.select_related("grid").get(key=task["data"]["tile"])
        prediction = max(task.get("predictions") or [], key=lambda found: found["id"], default=None)
        shown = prediction["result"] if prediction is not None else []
        correction = correct(
            self._outlines(shown, tile), self._truth.on(tile), self.person.habits, tile.grid.tile_size, self._rng
        )
        seconds = float((5 + 7 * correction.effort) * self._rng.lognormal(0, 0.3))
        result = self._result(correction, shown, tile, self._look(task))
        payload: Json = {"result": result, "lead_time": round(seconds, 1)}
        if prediction is not None:
            payload["parent_prediction"] = prediction["id"]
        skipped = bool(self._rng.random() < self.person.skip)
        if skipped:
            payload["was_cancelled"] = True
        return DoneTask(task["id"], tile.key, skipped, correction, seconds), payload

    def _outlines(self, result: list[Json], tile: Tile) -> list[Outline]:
        """What is shown, in tile pixels."""
        size = tile.grid.tile_size
        reading = read_result(result, tile_size=size, classes=self._classes)
        found = [(shape, clipped(shape.geometry, size)) for shape in reading.shapes]
        return [Outline(shape.region, shape.class_name, polygon) for shape, polygon in found if polygon is not None]

    def _look(self, task: Json) -> int:
        """Load the picture as a browser does; pixels of its side."""
        address = task["data"][self._picture]
        try:
            response = self._http.get(address, headers={"Authorization": ""})
            response.raise_for_status()
            with Image.open(BytesIO(response.content)) as picture:
                return int(picture.width)
        except (httpx.HTTPError, UnidentifiedImageError) as error:
            raise LabelStudioFailed(f"The picture {address} of task {task['id']} cannot be shown ({error}).") from error

    def _result(self, correction: Correction, shown: list[Json], tile: Tile, size: int) -> list[Json]:
        """Regions as the editor sends them: what was left alone comes back unchanged."""
        before = {region["id"]: region for region in shown}
        regions = [before[outline.region] for outline in correction.outlines if outline.is_untouched]
        drawn = [
            ShownInstance(self._region_id(outline), outline.class_name, _rings(outline))
            for outline in correction.outlines
            if not outline.is_untouched
        ]
        regions += write_result(drawn, tile_size=tile.grid.tile_size, picture=self._picture, picture_size=size)
        return regions or [self._nothing(size)]

    def _region_id(self, outline: Outline) -> str:
        """A mended polygon keeps its id; what is new, or needs the brush because of holes, gets one."""
        if outline.region and not outline.polygon.interiors:
            return outline.region
        return "".join(self._rng.choice(list(_ID_LETTERS), 10))

    def _nothing(self, size: int) -> Json:
        """The verdict that the tile was looked at and holds nothing."""
        return {
            "id": "".join(self._rng.choice(list(_ID_LETTERS), 10)),
            "from_name": VERDICT,
            "to_name": self._picture,
            "type": "choices",
            "original_width": size,
            "original_height": size,
            "value": {"choices": [nothing_there(self._classes)]},
        }

    def _post_form(self, path: str) -> bool:
        """Fill in a login or sign-up form; whether it let us in."""
        self._checked(self._send("GET", path))
        fields = {
            "email": self.person.email,
            "password": self.person.password,
            "csrfmiddlewaretoken": self._http.cookies.get("csrftoken", ""),
        }
        answer = self._send("POST", path, data=fields, headers={"Referer": str(self._http.base_url)})
        if answer.status_code != 302:
            return False
        token = self._json("GET", "/api/current-user/token")["token"]
        self._http.cookies.clear()
        self._http.headers["Authorization"] = f"Token {token}"
        return True

    def _send(self, method: str, path: str, **fields: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **fields)
        except httpx.HTTPError as error:
            raise LabelStudioFailed(
                f"Label Studio at {self._http.base_url} did not answer {self.person.email}'s {method} {path} ({error})."
            ) from error

    def _checked(self, response: httpx.Response) -> Json:
        if response.is_success:
            is_json = "json" in response.headers.get("Content-Type", "")
            return dict(response.json()) if is_json else {}
        raise LabelStudioFailed(
            f"Label Studio answered {response.status_code} to {self.person.email}'s {response.request.method} "
            f"{response.request.url.path}: {one_line(response.text)}"
        )

    def _json(self, method: str, path: str, **fields: Any) -> Json:
        return self._checked(self._send(method, path, **fields))


def _rings(outline: Outline) -> list[list[list[float]]]:
    rings = [outline.polygon.exterior, *outline.polygon.interiors]
    return [[[float(x), float(y)] for x, y in ring.coords[:-1]] for ring in rings]
