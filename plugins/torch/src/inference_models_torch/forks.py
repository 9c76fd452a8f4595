"""Locks of a whole process that is forked while another thread holds one of them."""

from __future__ import annotations

import os
import threading
from typing import Any


def lock_across_forks() -> Any:
    """A lock that whoever forks waits for, so that no child is made without its end.

    A child has none of its parent's other threads: what one of them holds is held there
    for ever, and what it has half changed stays so. It is reentrant, since the thread
    that holds it may fork. Such locks are never taken one within another.
    """
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire,
            after_in_parent=lock.release,
            after_in_child=lock.release,
        )
    return lock
