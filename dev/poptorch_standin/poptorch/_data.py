"""Batches as large as one call takes them."""

from __future__ import annotations

import logging
from typing import Any, Optional

import torch

from poptorch.enums import DataLoaderMode
from poptorch.options import Options

LOG = logging.getLogger("poptorch")


class DataLoader(torch.utils.data.DataLoader):  # type: ignore[type-arg]  # torch 2.0 has no types for the samples
    """torch's, which gives micro-batch x device iterations x replicas x accumulation samples at a time."""

    def __init__(
        self,
        options: Options,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        num_workers: int = 0,
        drop_last: bool = True,
        persistent_workers: Optional[bool] = None,
        auto_distributed_partitioning: bool = True,
        mode: DataLoaderMode = DataLoaderMode.Sync,
        rebatched_worker_size: Optional[int] = None,
        **kwargs: Any,
    ) -> None:
        """Args: batch_size: of a micro-batch."""
        assert isinstance(options, Options)
        self.options = options
        self.combinedBatchSize = batch_size * options.samples_factor
        rest = len(dataset) % self.combinedBatchSize
        if rest and not drop_last:
            LOG.warning(
                "%d samples are not divisible by the %d of one call and drop_last=False: the last batch has %d",
                len(dataset),
                self.combinedBatchSize,
                rest,
            )
        super().__init__(
            dataset,
            batch_size=self.combinedBatchSize,
            shuffle=shuffle,
            num_workers=num_workers,
            drop_last=drop_last,
            persistent_workers=num_workers > 0 if persistent_workers is None else persistent_workers,
            **kwargs,
        )
