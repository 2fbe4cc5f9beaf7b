"""Speed of the core against the ways that people use today; see README.md beside this file."""

import os

# One thread for every library. They read these variables when they are loaded, so they are set before.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
