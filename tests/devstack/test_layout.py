from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_platform_is_a_source_root_and_never_a_package() -> None:
    # With it, `import platform` finds our folder instead of the standard library, and gunicorn and torch die.
    assert (REPOSITORY / "platform" / "thawloop" / "__init__.py").exists()
    assert not (REPOSITORY / "platform" / "__init__.py").exists()
