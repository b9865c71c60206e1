"""Kubernetes operator that turns an XRayTrainingJob into one training run on a flavor of accelerator."""
