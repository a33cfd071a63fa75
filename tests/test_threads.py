import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from skscatharm._threads import one_blas_thread


def blas_threads():
    """The numbers of threads of all BLAS libraries."""
    return {
        lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"
    }


@pytest.fixture(autouse=True)
def _two_threads():
    with threadpool_limits(2, user_api="blas"):
        yield


def test_limit_and_restore() -> None:
    with one_blas_thread():
        assert blas_threads() == {1}
        with one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {2}


def test_restored_after_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), one_blas_thread():
        raise KeyboardInterrupt
    assert blas_threads() == {2}


def test_the_last_to_leave_restores() -> None:
    entered, leave = threading.Event(), threading.Event()

    def stay():
        with one_blas_thread():
            entered.set()
            leave.wait(10)
            return blas_threads()

    with ThreadPoolExecutor(1) as pool:
        with one_blas_thread():
            # The second enters later and leaves later.
            later = pool.submit(stay)
            assert entered.wait(10)
        assert blas_threads() == {1}
        leave.set()
        assert later.result() == {1}
    assert blas_threads() == {2}


def test_many_threads() -> None:
    def enter(_):
        with one_blas_thread():
            return blas_threads()

    with ThreadPoolExecutor(8) as pool:
        assert all(found == {1} for found in pool.map(enter, range(200)))
    assert blas_threads() == {2}


def _limited_threads(queue):
    with one_blas_thread():
        queue.put(blas_threads())


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork here"
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_processes_can_enter() -> None:
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with one_blas_thread():
        process = context.Process(target=_limited_threads, args=(queue,))
        process.start()
        assert queue.get() == {1}
        process.join()
    assert process.exitcode == 0
    assert blas_threads() == {2}
