"""The product's settings, and the commands of a checkout: `serve`, `demo` and those that make datasets."""

from thawloop import settings as product
from thawloop.settings import *  # noqa: F403 - Django reads every name in capitals

INSTALLED_APPS = [*product.INSTALLED_APPS, "devstack", "demo"]
