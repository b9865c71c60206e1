"""What people type, for each command: the help shows it, and docs/cli.md. Called by __main__ and dev/cli.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EXAMPLES: Final[Mapping[str, str]] = {
    "submit": """\
kubectl xray submit -f job.yaml --wait
kubectl xray submit -f job.yaml --name second --learning-rate 1e-4
kubectl xray submit --name vit --flavor vpod4-vm --claim nih --results results""",
    "list": """\
kubectl xray list -A --state Training --state Queued
kubectl xray list -o wide""",
    "watch": "kubectl xray watch vit",
    "describe": "kubectl xray describe vit",
    "logs": """\
kubectl xray logs vit -f
kubectl xray logs vit -c train --previous""",
    "report": """\
kubectl xray report vit --open
kubectl xray report vit --all -o vit""",
    "quote": """\
kubectl xray quote -f job.yaml
kubectl xray quote -f job.yaml --flavor vpod16-bm --epochs 10""",
    "compare": """\
kubectl xray compare -f job.yaml --flavors vpod4-vm,vpod16-bm --repeat 3
kubectl xray compare -f job.yaml --flavors vpod4-vm,vpod16-bm --simulate""",
    "cost": """\
kubectl xray cost vit --phases
kubectl xray cost -A --per namespace --per month""",
    "suspend": "kubectl xray suspend vit",
    "resume": "kubectl xray resume vit",
    "rerun": "kubectl xray rerun vit",
    "render": """\
kubectl xray render -f job.yaml | kubectl apply --dry-run=server -f -
kubectl xray render -f job.yaml --flavors flavors.yaml""",
    "doctor": "kubectl xray doctor -n chest",
    "completion": """\
source <(kubectl xray completion bash)
kubectl xray completion fish | source""",
}
"""Lines of a shell."""
