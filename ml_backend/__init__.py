"""Everything that runs torch."""

import os

# OpenMP's threads spin while they wait for each other, which is ruinous as soon as another process wants a core too:
# 55 s per training step instead of 2.2 s, measured on 2 busy cores. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
