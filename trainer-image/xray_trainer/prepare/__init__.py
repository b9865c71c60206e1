"""Preparation: archives and labels in, a cache of small grey images split by patient out. Imports no torch.

Stages: sources (claim, web, bucket, generator) -> archive -> decode -> store -> split -> shards -> cache. `run.prepare`
puts them together.
"""
