from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from thawloop.local.secrets import SecretStore, hex_token, write_private


def test_a_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "secrets")
    secret = store.get("redis")
    assert SecretStore(tmp_path / "secrets").get("redis") == secret
    assert store.get("postgres") != secret
    assert (tmp_path / "secrets" / "redis").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_concurrent_callers_get_the_same_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: SecretStore(tmp_path).get("token", hex_token), range(64)))
    assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_a_private_file_is_replaced_whole_and_stays_private(tmp_path: Path) -> None:
    for text in ("one", "two"):
        path = write_private(tmp_path / "environment", text)
    assert path.read_text() == "two\n"
    assert path.stat().st_mode & 0o777 == 0o600
