import subprocess
import sys

from skscatharm._progress import progress_bar


def test_progress_bar(capsys) -> None:
    with progress_bar(1, "fit", total=3) as update:
        update()
        update(2)
    assert "3/3 [" in capsys.readouterr().err


def test_neither_bar_nor_thread_if_quiet() -> None:
    # In a process of its own: a bar of another test may have left its thread.
    script = """
import threading
from skscatharm._progress import progress_bar
with progress_bar(0, "fit", total=3) as update:
    update()
    update(2)
    print(threading.active_count())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
