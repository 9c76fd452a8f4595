"""What a process that is forked in the middle of something finds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

FORKED = """
    import os, signal, threading, time, warnings

    from inference_models_torch.forks import lock_across_forks

    warnings.simplefilter("ignore")  # Python warns of threads, which are the point
    lock, held, half = lock_across_forks(), threading.Event(), []

    def work():
        with lock:
            half.append("begun")
            held.set()
            time.sleep(0.3)
            half.clear()

    if {in_thread}:
        threading.Thread(target=work).start()
        held.wait()
    else:
        lock.acquire()
    child = os.fork()
    if not child:
        signal.alarm(5)
        with lock:
            os._exit(len(half))
    print(os.waitpid(child, 0)[1])
    with lock:
        print("free")
"""


@pytest.mark.parametrize("in_thread", [True, False], ids=["another", "its own"])
def test_a_child_gets_a_lock_that_a_thread_held(in_thread):
    code = "\n".join(line[4:] for line in FORKED.splitlines())
    command = [sys.executable, "-c", code.format(in_thread=in_thread)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.split() == ["0", "free"], done.stderr
