"""How our web servers take requests: gunicorn's processes, each of which reads a request whole before working on it."""
