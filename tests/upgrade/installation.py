"""An installation that `make_fixture.py` wrote down: its scenes, its networks, its database, put in place again."""

import hashlib
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import rasterio
from affine import Affine
from psycopg import sql

HERE = Path(__file__).resolve().parent / "fixture"
DATABASE, ARTIFACTS, EXPECTED = HERE / "database.sql.xz", HERE / "artifacts.tar.xz", HERE / "expected.json.xz"
ROOT = "@ROOT@"  # stands for the installation's folder in what was written down
SCENES = {"optical.tif": (4, "uint16", 0), "dem.tif": (1, "float32", -9999)}  # bands, type, nodata


def expected() -> dict[str, Any]:
    """What was true of the installation when it was written down."""
    found: dict[str, Any] = json.loads(lzma.decompress(EXPECTED.read_bytes()))
    return found


def write_scenes(folder: Path, width: int, height: int, transform: Affine, crs: str) -> None:
    """The rasters of the demo's scenes, with other pixels: whole numbers that are the same on every machine.

    The demo's own are computed with functions whose last digits differ from processor to processor, and releases are
    known by the checksums of what is made from them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:height, :width]
    for name, (count, dtype, nodata) in SCENES.items():
        pattern = np.stack([(x // 4 * 37 + y // 4 * 91 + x * y // 64 + band * 613) % 1999 for band in range(count)])
        pixels = pattern + 500 if count > 1 else pattern % 61 + 40  # reflectance in ten-thousandths; metres
        with rasterio.open(
            folder / name, "w", "GTiff", width, height, count, crs, transform, dtype, nodata, compress="deflate"
        ) as file:
            file.write(pixels.astype(dtype))


def put_artifacts(root: Path) -> None:
    """Releases without chips, model cards and logs."""
    with tarfile.open(ARTIFACTS) as archive:
        archive.extractall(root / "artifacts", filter="data")


def put_scenes(root: Path) -> None:
    """The rasters that the database's scenes name."""
    place = expected()["scenes"]
    write_scenes(root / "scenes", place["width"], place["height"], Affine(*place["transform"]), place["crs"])


def restore(server: str, name: str, root: Path) -> None:
    """Make the database again as it was before the upgrade, on a server of ours, with its files below `root`.

    Args:
        server: Address of a database of the server whose account may create others.
        name: Of the new database.
        root: What its paths shall begin with.
    """
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    text = lzma.decompress(DATABASE.read_bytes()).decode().replace(ROOT, str(root))
    with psycopg.connect(server, dbname=name) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS postgis")
        connection.execute(text.encode())


def build_networks(server: str, name: str, root: Path) -> None:
    """Give every model version the weights that the network of its card begins with.

    Card and row are told their checksum, so call it before the upgrade, while the tables have the names of then.
    """
    import torch

    from contracts.network import NETWORK_VERSION
    from ml_backend.detector.checkpoint import open_checkpoint, write_checkpoint
    from ml_backend.detector.model import build_model

    with psycopg.connect(server, dbname=name) as connection:
        for path, number in connection.execute("SELECT path, number FROM training_modelversion").fetchall():
            old = open_checkpoint(root / "artifacts" / path)
            torch.manual_seed(number)
            weights = build_model(old.config, old.modalities, len(old.classes)).state_dict()
            for layer in [name for name in weights if name.endswith("fc_cls.bias")]:
                weights[layer][-1] += 10.0  # "nothing": outlines of all that an untrained model sees take minutes
            card = write_checkpoint(old.path, weights, old.card | {"architecture": NETWORK_VERSION}).card
            connection.execute(
                "UPDATE training_modelversion SET checksum = %s, card = %s WHERE path = %s",
                [card["weights"]["sha256"], json.dumps(card), path],
            )


def write_placeholders(server: str, name: str, root: Path) -> None:
    """Weights for tests in which no model has to speak: files that are there, whatever is in them."""
    for card in (root / "artifacts/models").rglob("model.json"):
        card.with_name("model.safetensors").write_bytes(b"")


def row_counts(server: str, name: str) -> dict[str, int]:
    """Rows by table, without the app that the table's name begins with: models may move to other apps."""
    with psycopg.connect(server, dbname=name) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            " AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e') ORDER BY relname"
        ).fetchall()
        return {
            table.partition("_")[2]: connection.execute(
                sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            ).fetchone()[0]
            for (table,) in tables
            if table not in CHANGED_BY_EVERY_MIGRATION
        }


# What `migrate` itself keeps: which migrations ran, which models and permissions there are, what the roles may do.
CHANGED_BY_EVERY_MIGRATION = {
    "django_migrations",
    "django_content_type",
    "auth_permission",
    "auth_group_permissions",
}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
