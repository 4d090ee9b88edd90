"""Settings of `make dev`: those of a checkout, with error pages that show the code."""

from devstack.settings import *  # noqa: F403 - Django reads every name in capitals

DEBUG = True
# Workers start at once after a change; the jobs that need torch import it themselves.
THAWLOOP_IMPORT_AHEAD = {}
