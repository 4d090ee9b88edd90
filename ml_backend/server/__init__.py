"""The Label Studio ML backend: a small web server that returns stored predictions. It does not need torch.

`python -m ml_backend.server --port 9090`, or any WSGI server with `ml_backend.server.wsgi:application`.
"""

MAX_BODY_BYTES = 64 * 1024 * 1024
