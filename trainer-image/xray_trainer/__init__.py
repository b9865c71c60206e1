"""Prepares chest X-rays in NIH ChestX-ray14 layout and fine-tunes a Vision Transformer on them.

Research software, not a medical device: its models must not be used to diagnose or treat anyone.
Layers: `__main__` calls `prepare.run`, `train` and `synthetic`; only `backends/` knows transformers' training loop.
"""

from __future__ import annotations

__version__ = "0.1.0"
