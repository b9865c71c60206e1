"""Kubernetes operator that turns an XRayTrainingJob into one training run on a flavor of accelerator."""

__version__ = "0.1.0"
