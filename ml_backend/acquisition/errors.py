"""The error of this package."""


class AcquisitionError(Exception):
    """The arguments are contradictory or unusable; its text is one sentence a user can act on."""
