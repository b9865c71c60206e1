"""Imported by a part of optimum-graphcore that a Vision Transformer doesn't use. Here models are not wrapped."""

from typing import Any


def unwrapModelIfNecessary(model: Any) -> None:
    """Nothing is wrapped."""


def rewrapModelIfNecessary(model: Any) -> None:
    """Nothing was unwrapped."""
