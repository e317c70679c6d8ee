"""The words of a step's inputs, where layers look for them; ops define them because attention reads them first."""

from vllm.ops.batch import Batch, GroupBatch

__all__ = ["Batch", "GroupBatch"]
