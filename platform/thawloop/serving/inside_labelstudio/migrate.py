"""Migrates Label Studio's database. Run by the interpreter of Label Studio's environment; settings come from there."""

from label_studio.server import _apply_database_migrations, _setup_env

_setup_env()
_apply_database_migrations()
