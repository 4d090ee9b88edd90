"""Whether Label Studio is there and knows us."""

from labeling.labelstudio.client import Client


def check_label_studio() -> str:
    """Label Studio answers and our token works."""
    with Client(read_seconds=4.0) as client:
        return f"Label Studio {client.version()} at {client.url}, as {client.whoami().get('email')}"
