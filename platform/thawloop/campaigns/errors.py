"""Refusals of the campaigns room."""

from thawloop.core.errors import Refused


class BadCampaign(Refused):
    """A campaign cannot be changed as asked."""
