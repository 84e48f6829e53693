"""What all tests share."""

from __future__ import annotations

import signal

# A process that a shell starts in the background inherits SIGINT ignored; tests of interrupts need Python's handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
