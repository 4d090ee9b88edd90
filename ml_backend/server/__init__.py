"""The Label Studio ML backend: a small web server that hands out stored predictions. It needs no torch.

`python -m ml_backend.server --port 9090`, or any WSGI server with `ml_backend.server.wsgi:application`.
"""

MAX_BODY_BYTES = 64 * 1024 * 1024
