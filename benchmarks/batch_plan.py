"""Measures the batches of a configuration: padding, pairs that meet again, and the time to plan and to load them.

    python -m benchmarks.batch_plan demo
    python -m benchmarks.batch_plan multi30k-en-de data.train.0.source=train.en.gz data.train.0.target=train.de.gz

Pairs meet again if they share a batch in an epoch and in the next one. The tokenizer is trained if the run folder has
none.
"""

import sys
import time
from pathlib import Path

import numpy as np

from nmt.config.file import load_config
from nmt.data.batching import BatchLoader, BatchPlan
from nmt.data.preparation import prepare_training_data

LOADED_BATCHES = 200


def measure_padding(plan: BatchPlan, epoch: int) -> float:
    """Returns the share of the tokens of an epoch, source and target, that are padding to the longest row."""
    padded = sum(int(plan.lengths[batch].max(axis=0).sum()) * len(batch) for batch in plan.draw_epoch(epoch))
    return 1 - sum(int(plan.lengths[batch].sum()) for batch in plan.draw_epoch(epoch)) / padded


def measure_repetition(plan: BatchPlan, epoch: int) -> float:
    """Returns the share of the pairs of rows that share a batch and share one in the next epoch, too."""
    following = -1 - np.arange(len(plan.lengths))  # of pairs that the next epoch does not read
    for number, batch in enumerate(plan.draw_epoch(epoch + 1)):
        following[batch] = number
    again = together = 0
    for batch in plan.draw_epoch(epoch):
        counts = np.unique(following[batch], return_counts=True)[1]
        again += int((counts * (counts - 1)).sum())
        together += len(batch) * (len(batch) - 1)
    return again / max(1, together)


def measure_loading(loader: BatchLoader, num_batches: int) -> float:
    """Returns the processor time in milliseconds to load a batch in the second epoch, when caches are filled."""
    for index in range(num_batches):
        loader.load_batch(0, index)
    start = time.process_time()
    for index in range(num_batches):
        loader.load_batch(1, index)
    return (time.process_time() - start) * 1000 / num_batches


def main() -> None:
    """Prints one line per measurement."""
    config = load_config(sys.argv[1], sys.argv[2:])
    assert config.run_dir is not None
    Path(config.run_dir).mkdir(parents=True, exist_ok=True)
    data, training = prepare_training_data(config, config.run_dir, print), config.training
    start = time.perf_counter()
    plan = BatchPlan(data.lengths, by=training.batch_by, size=training.batch_size, seed=config.seed, shares=data.shares)
    fitted = time.perf_counter()
    sizes = [len(batch) for batch in plan.draw_epoch(0)]
    drawn = time.perf_counter()
    print(f"{len(data.lengths):,} pairs in {len(sizes):,} batches of {min(sizes)} to {max(sizes)}")
    print(f"padding {np.mean([measure_padding(plan, epoch) for epoch in range(3)]):.2%}")
    print(f"pairs that meet again {np.mean([measure_repetition(plan, epoch) for epoch in range(3)]):.2%}")
    loader = BatchLoader(data.tokenized, data.kept, plan, weigh=data.weigh)
    loading = measure_loading(loader, min(LOADED_BATCHES, plan.num_batches))
    print(f"{loading:.2f} ms of processor time to load a batch")
    print(f"{fitted - start:.2f} s to fit the buckets, {drawn - fitted:.2f} s to order an epoch")


if __name__ == "__main__":
    main()
