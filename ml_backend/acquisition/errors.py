"""What can go wrong for a user of acquisition."""


class AcquisitionError(Exception):
    """The question makes no sense; its text is one sentence a user can act on."""
