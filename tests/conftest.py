"""What all tests share."""

from __future__ import annotations

import os
import signal

# Small tensors gain nothing from a second thread, and two processes of two threads each on two cores collapse.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A process that a shell starts in the background inherits SIGINT ignored; tests of interrupts need Python's handler.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Many of Ray's calls, made without a connection, start a cluster of their own. Its workers have the environment of that
# moment, and all later tests get it. Read when Ray is imported.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
