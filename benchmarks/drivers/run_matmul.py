"""Measures the peak speed of a square matrix product in TensorFlow (oneDNN): python run_matmul.py JOB.json."""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from reporting import read_job, write_report


def measure_gflops(size: int, precision: str, seconds: float) -> float:
    """Measures GFLOP/s over at least `seconds` of consecutive products."""
    left = tf.cast(tf.random.normal((size, size), seed=1), precision)
    right = tf.cast(tf.random.normal((size, size), seed=2), precision)
    product = tf.function(tf.matmul, autograph=False)
    for _ in range(3):
        product(left, right).numpy()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        # Reading a result waits for the product. Otherwise only its start would be timed.
        product(left, right)[0, 0].numpy()
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - started) / 1e9


if __name__ == "__main__":
    job = read_job()
    found = {precision: measure_gflops(job["size"], precision, job["seconds"]) for precision in ("float32", "bfloat16")}
    write_report(job, **found, tensorflow=tf.__version__)
