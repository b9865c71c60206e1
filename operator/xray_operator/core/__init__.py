"""Everything that can be decided from values: no I/O, no clock, no Kubernetes client, no kopf."""
