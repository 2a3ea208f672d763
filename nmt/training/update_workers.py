"""One update on TensorFlow that several workers share, in which all cut their batches alike where one lacks memory."""

from typing import Any

import tensorflow as tf

from nmt.training.update_tensorflow import TensorFlowUpdate


class WorkersUpdate(TensorFlowUpdate):
    """The gradient is found in two parts: what each worker finds for itself, and what needs all of them.

    A worker without memory for its own says so between the two, while it still can: a failure in the second part would
    leave the others waiting for its sums.
    """

    def _finding(self) -> Any:
        gradients, summed = self._of_batches(self._own_sums), tf.function(self._summed, autograph=False)

        def found(*batch: Any) -> tuple:
            failure: tf.errors.ResourceExhaustedError | None = None
            try:
                sums = gradients(*batch)
            except tf.errors.ResourceExhaustedError as error:
                failure = error
            [lacking] = self.workers.of_each(failure is not None)
            if lacking.any():
                reason = f"Worker {lacking.argmax()} has not enough memory."
                raise failure or tf.errors.ResourceExhaustedError(None, None, reason)
            return summed(sums)

        return found

    def _own_sums(self, *batch: Any) -> list:
        return self.strategy.run(self._gradient_sums, args=batch)
