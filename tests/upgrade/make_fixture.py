"""Writes down an installation that the demo made, for the tests beside this to upgrade.

    make demo HEADLESS=1
    .venv/bin/python tests/upgrade/make_fixture.py var/demo

Do so on the version that installations shall be upgraded from, never on a later one: what it can no longer say is what
the test is for. The demo's folder is copied and left alone. The copy gets what the demo leaves out (`additions.py`).
Most of its predictions are removed, because their embeddings cannot be compressed; its scenes are replaced by rasters
that every machine can make again, and its releases are written anew from them. Secrets, sessions, tokens and passwords
are left out, and so are weights: tests make some.

The fixture: `database.sql.xz`, the database as INSERTs; `artifacts.tar.xz`, releases without chips, model cards and
logs; `expected.json.xz`, what was true of it.
"""

import argparse
import io
import json
import lzma
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "platform"), str(REPOSITORY)]

from additions import (  # noqa: E402  # siblings of this script
    add_admin_log,
    add_annotations,
    add_batch,
    add_imports,
    add_jobs,
    add_models,
    add_people,
)
from installation import ARTIFACTS, DATABASE, EXPECTED, ROOT, row_counts, write_scenes  # noqa: E402
from seen import see  # noqa: E402

from devstack.binaries import find_postgres  # noqa: E402
from devstack.stack import LocalStack  # noqa: E402

KEPT_PREDICTIONS = 16  # of the champion, beside those that tasks and annotations name
NOT_KEPT = ("django_session", "authtoken_token", "core_apitoken", "core_loginfailure")
PSQL_ONLY = re.compile(r"^(\\|CREATE SCHEMA|ALTER SCHEMA|COMMENT ON SCHEMA).*\n?", flags=re.M)


def main() -> None:
    """Copy the demo, complete it, write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of a finished `make demo`, e.g. var/demo")
    demo = parser.parse_args().demo.resolve()
    if (demo / "postgres/data/postmaster.pid").exists():
        sys.exit(f"The servers of {demo} are running: stop the demo first.")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "installation"
        for name in ("postgres", "secrets", "artifacts", "scenes"):
            shutil.copytree(demo / name, root / name)
        with LocalStack(root, durable=False) as stack:
            _set_django_up(stack, root)
            first = _first_root()
            _complete(root)
            _write_down(stack, root, first)
            from django.db import connections

            connections.close_all()
    for file in (DATABASE, ARTIFACTS, EXPECTED):
        print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


def _set_django_up(stack: LocalStack, root: Path) -> None:
    os.environ |= {
        **stack.environment,
        "DJANGO_SETTINGS_MODULE": "thawloop.settings",
        "THAWLOOP_VAR": str(root),
        "THAWLOOP_DATA_ROOTS": str(root / "scenes"),
        "THAWLOOP_ENV_FILE": os.devnull,
        "LABEL_STUDIO_URL": "http://127.0.0.1:9",
    }
    import django

    django.setup()


def _first_root() -> str:
    """Where the demo ran, which need not be where its folder lies now."""
    from thawloop.catalog.models import Scene

    return str(Path(Scene.objects.earliest("pk").uri).parents[1])


def _complete(root: Path) -> None:
    from django.db import connection, transaction

    from thawloop.campaigns.models import Campaign
    from thawloop.core.context import acting

    with connection.cursor() as cursor, transaction.atomic():
        cursor.execute("UPDATE catalog_scene SET uri = %s || substring(uri FROM '[^/]*$')", [f"{root}/scenes/"])
        for table in NOT_KEPT:
            cursor.execute(f"DELETE FROM {table}")
    campaign = Campaign.objects.get()
    with acting(name="upgrade"):
        add_people()
        add_annotations(campaign)
        add_imports(campaign, root / "scenes")
        add_batch(campaign)
        add_models(campaign)
        _remove_predictions(campaign)
        _replace_scenes(root / "scenes")
        _write_releases_anew(root)
        add_jobs(campaign)
        add_admin_log(campaign)


def _remove_predictions(campaign: Any) -> None:
    from django.db import connection

    from thawloop.registry.selectors import champion

    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE TEMPORARY TABLE kept AS SELECT id FROM labeling_prediction
            WHERE id IN (SELECT prediction_id FROM labeling_annotationtask)
            OR id IN (SELECT prediction_id FROM labeling_annotation)
            OR id IN (SELECT prediction_id FROM labeling_preannotation)
            OR id IN (SELECT id FROM labeling_prediction WHERE model_version_id = %s ORDER BY tile_id LIMIT %s);
            DELETE FROM labeling_predictedinstance WHERE prediction_id NOT IN (SELECT id FROM kept);
            DELETE FROM labeling_prediction WHERE id NOT IN (SELECT id FROM kept);
            """,
            [champion(campaign).pk, KEPT_PREDICTIONS],
        )


def _replace_scenes(folder: Path) -> None:
    """Other rasters in the place of the demo's, all on the grid of the optical one."""
    from thawloop.catalog.models import Scene
    from thawloop.core.storage import sha256

    shutil.rmtree(folder)
    optical = Scene.objects.filter(modality__name="rgb").get()
    write_scenes(folder, **_place(optical))
    fields = ("width", "height", "transform", "pixel_size")
    for scene in Scene.objects.all():
        scene.checksum, scene.size_bytes = sha256(scene.uri), Path(scene.uri).stat().st_size
        for field in fields:
            setattr(scene, field, getattr(optical, field))
        scene.save()


def _place(scene: Any) -> dict[str, Any]:
    from affine import Affine

    return {"width": scene.width, "height": scene.height, "transform": Affine(*scene.transform), "crs": scene.crs}


def _write_releases_anew(root: Path) -> None:
    from thawloop.releases.models import Release
    from thawloop.releases.services import materialise

    shutil.rmtree(root / "artifacts/releases")
    for release in Release.objects.order_by("pk"):
        release.state, release.path, release.manifest_checksum = "frozen", "", ""
        release.save()
        materialise(release)


def _write_down(stack: LocalStack, root: Path, first: str) -> None:
    from thawloop.catalog.models import Scene

    DATABASE.parent.mkdir(exist_ok=True)
    place = _place(Scene.objects.get(modality__name="rgb"))
    address = stack.database_url.replace("postgis:", "postgresql:")
    expected = {
        "scenes": place | {"transform": list(place["transform"])[:6]},
        "rows": row_counts(address, "thawloop"),
        "seen": see(str(root), first, called=ROOT),
    }
    text = _public(json.dumps(expected, indent=0, sort_keys=True), root)
    EXPECTED.write_bytes(lzma.compress(text.encode(), preset=9))
    DATABASE.write_bytes(lzma.compress(_dump(address, root, first).encode(), preset=9 | lzma.PRESET_EXTREME))
    _pack(root)


def _dump(address: str, root: Path, first: str) -> str:
    """The whole schema as statements that need no psql, without paths of this machine."""
    binaries = find_postgres()
    command = [binaries.program("pg_dump"), "--no-owner", "--no-privileges", "--schema=public", "--inserts"]
    command += ["--rows-per-insert=100", f"--dbname={address}"]
    done = subprocess.run(
        command, env=os.environ | dict(binaries.environment), capture_output=True, text=True, check=True
    )
    text = PSQL_ONLY.sub("", done.stdout.replace(str(root), ROOT).replace(first, ROOT))
    return _public(text, root)


def _public(text: str, root: Path) -> str:
    """The text, if it holds no secret of the demo and nothing of this machine."""
    secrets = [re.escape(path.read_text().strip()) for path in (root / "secrets").iterdir()]
    paths = [rf"{re.escape(str(path))}/" for path in (Path.home(), REPOSITORY, tempfile.gettempdir())]
    for word in (*secrets, *paths, "pbkdf2", rf"\b{socket.gethostname()}\b"):
        if found := re.search(rf".{{0,60}}{word}", text):
            sys.exit(f"This belongs to this machine: {found[0]!r}. Mend make_fixture.py.")
    return text


def _pack(root: Path) -> None:
    """The same bytes for the same files."""
    artifacts = root / "artifacts"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(artifacts.rglob("*")):
            if path.is_file() and path.suffix in (".json", ".md", ".csv"):
                data = _public(path.read_text(), root).encode()
                entry = tarfile.TarInfo(path.relative_to(artifacts).as_posix())
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    ARTIFACTS.write_bytes(lzma.compress(content.getvalue(), preset=9))


if __name__ == "__main__":
    main()
