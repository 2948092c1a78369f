"""Whether something works on one sample at a time: how much memory few and many of them need."""

import gc
import tracemalloc

SIDE, FEW, MANY = 128, 2, 8
#: Half of an image. What is listed of a sample is a tenth of it.
BOUND = SIDE * SIDE * 3 // 2


def peak(run, *arguments):
    """Bytes that Python and numpy hold at most in a call, beyond those from before."""
    gc.collect()
    tracemalloc.start()
    try:
        run(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_streams(run):
    """`run` takes a number of samples."""
    run(FEW)  # imports and caches
    few, many = peak(run, FEW), peak(run, MANY)
    assert many - few < BOUND, f"{FEW} samples: {few} bytes, {MANY} samples: {many} bytes"
