"""`make demo`: from nothing to a trained model and its price, on a real cluster. Run by people; prints a table.

Environment: NIH_DIR, a folder in NIH layout to use instead of generated X-rays; PROVIDER, as in `dev/cluster up`;
XRAY_COUNT, how many X-rays to generate.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dev.cluster.state import ClusterError, say
from dev.demo.stack import (
    REPOSITORY,
    Kube,
    Manifest,
    build_images,
    claim,
    install_chart,
    namespace,
    pod_on_claim,
    restricted_pod,
    start_cluster,
)

NAMESPACE = "xray-demo"
JOB = "demo"
OUTPUT = REPOSITORY / "build" / "demo"
GENERATED = 800
"""X-rays to generate: enough for a small model to learn from, little enough for a warm run of minutes on 2 cores."""
DEADLINE_SECONDS = 3600
SHOWN = ("loss", "auroc_macro")


@dataclass
class Stopwatch:
    """What was done and how many seconds it took, in order."""

    rows: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        say(f"\n== {what}")
        start = time.monotonic()
        yield
        self.rows.append((what, time.monotonic() - start))


def main() -> int:
    watch = Stopwatch()
    nih_folder = os.environ.get("NIH_DIR")
    folder = Path(nih_folder).resolve() if nih_folder else None
    if folder is not None and not folder.is_dir():
        raise ClusterError(
            f"NIH_DIR: {folder} is not a folder; expected images_*.tar.gz or images/, and the labels CSV"
        )
    with watch.measure("cluster with 4 stand-in IPUs"):
        kube = start_cluster(4, os.environ.get("PROVIDER", "auto"))
    with watch.measure("images: operator, prepare, torch"):
        images = build_images("operator", "prepare", "torch")
    with watch.measure("chart"):
        install_chart(kube, images)
    with watch.measure("X-rays from NIH_DIR" if folder else "X-rays, generated"):
        kube.apply(namespace(NAMESPACE))
        data_claim = provide_xrays(kube, images["prepare"], folder)
        claim(kube, NAMESPACE, "results")
    with watch.measure("training job"):
        job = run_job(kube, demo_job(data_claim))
    with watch.measure("outputs fetched"):
        fetch_outputs(kube, images["prepare"], job)
    summary = summarise(job, watch)
    OUTPUT.joinpath("summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(table(job, watch))
    return 0 if summary["state"] == "Succeeded" else 1


def provide_xrays(kube: Kube, image: str, folder: Path | None) -> str:
    """Make the claim with the data set; generated ones are made once and kept. Returns: the claim's name."""
    if folder is not None:
        claim(kube, NAMESPACE, "nih", folder)
        return "nih"
    claim(kube, NAMESPACE, "xrays")
    count = int(os.environ.get("XRAY_COUNT", GENERATED))
    name = f"generate-{count}-{image.rpartition(':')[2]}"
    arguments = ["synthesize", "--out", "/data", "--images", str(count), "--seed", "7"]
    pod = restricted_pod(image, arguments, {"xrays": "/data"})
    spec = {"backoffLimit": 0, "template": {"spec": pod}}
    metadata = {"name": name, "namespace": NAMESPACE}
    kube.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    kube.kubectl("wait", "-n", NAMESPACE, f"job/{name}", "--for=condition=Complete", "--timeout=15m")
    return "xrays"


def demo_job(data_claim: str) -> str:
    """The example manifest, on the claim that holds the data."""
    text = (REPOSITORY / "examples" / "demo.yaml").read_text()
    return text.replace("claimName: xrays", f"claimName: {data_claim}")


def run_job(kube: Kube, manifest: str) -> Manifest:
    """Apply the job anew and follow it to its end. Returns: the finished resource."""
    kube.kubectl("delete", "xraytrainingjob", JOB, "-n", NAMESPACE, "--ignore-not-found", "--cascade=foreground")
    kube.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=manifest)
    deadline = time.monotonic() + DEADLINE_SECONDS
    shown = ""
    while time.monotonic() < deadline:
        job = kube.find("xraytrainingjob", JOB, NAMESPACE) or {}
        line = progress_line(job.get("status", {}))
        if line != shown:
            say(line)
            shown = line
        if job.get("status", {}).get("state") in ("Succeeded", "Failed"):
            return job
        time.sleep(2)
    raise ClusterError(
        f"xraytrainingjob/{JOB}: {shown!r} after {DEADLINE_SECONDS} s; kubectl -n {NAMESPACE} describe xtj"
    )


def progress_line(status: dict[str, Any]) -> str:
    """One line of what the job does now; the same line while nothing moves."""
    progress = status.get("trainerStatus", {})
    parts = [status.get("state", "Pending"), progress.get("progress", "")]
    parts += [f"{each['name']} {each['value']}" for each in progress.get("metrics", []) if each["name"] in SHOWN]
    if not progress:
        ready = [each for each in status.get("conditions", []) if each["type"] == "Ready"]
        parts += [each["message"] for each in ready]
    return "  ".join(part for part in parts if part)


def fetch_outputs(kube: Kube, image: str, job: Manifest) -> None:
    """Copy the run's small files into build/demo through a pod that reads the claim."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    results = job["status"].get("results", {})
    if not results:
        return
    with pod_on_claim(kube, NAMESPACE, "results", image) as root:
        kube.kubectl("cp", f"{root}/{results['folder']}", str(OUTPUT))


def summarise(job: Manifest, watch: Stopwatch) -> dict[str, Any]:
    """What a program wants to know of the demo; amounts and metrics as the status has them, null where it has none."""
    status = job["status"]
    results, data = status.get("results", {}), status.get("data", {})
    auroc = results.get("aurocMacro")
    phases = {name: times.get("seconds") for name, times in status.get("times", {}).items()}
    return {
        "state": status["state"],
        "auroc_macro": float(auroc) if auroc is not None else None,
        "findings_evaluated": results.get("findingsEvaluated"),
        "cost": {key: status.get("cost", {}).get(key) for key in ("total", "currency", "billedSeconds")},
        "times": {"phases": phases, "steps": {what: round(seconds, 1) for what, seconds in watch.rows}},
        "images": data.get("images"),
        "runs_on": status.get("runsOn"),
        "outputs": str(OUTPUT.relative_to(REPOSITORY)),
    }


def table(job: Manifest, watch: Stopwatch) -> str:
    """The demo's last words to a person."""
    status = job["status"]
    results, data, cost = (status.get(key, {}) for key in ("results", "data", "cost"))
    rows = [("STEP", "SECONDS"), *((what, f"{seconds:.0f}") for what, seconds in watch.rows)]
    for name, times in status.get("times", {}).items():
        rows.append((f"  of the job: {name}", str(times.get("seconds", "?"))))
    rows += [
        ("", ""),
        ("RESULT", ""),
        ("state", status["state"]),
        ("ran on", status.get("runsOn", "?")),
        (
            "images (patients)",
            f"{data.get('images', '?')} ({data.get('patients', '?')}), {data.get('rejected', '?')} rejected",
        ),
        (
            "macro AUROC",
            f"{results.get('aurocMacro', 'none')} over {results.get('findingsEvaluated', 0)} findings",
        ),
        ("loss (floor)", f"{results.get('loss', 'none')} ({results.get('lossFloor', 'none')})"),
        ("cost", cost.get("display", "?")),
        (
            "outputs",
            f"{OUTPUT.relative_to(REPOSITORY)}/ and claim {results.get('claimName', '?')}, folder {results.get('folder', '?')}",
        ),
        (
            "look at it",
            f'kubectl -n {NAMESPACE} describe xtj {JOB}   (eval "$(python3 dev/cluster env)" first)',
        ),
    ]
    width = max(len(left) for left, _ in rows)
    return "\n" + "\n".join(f"{left:<{width}}  {right}".rstrip() for left, right in rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ClusterError as error:
        sys.exit(f"demo: {error}")
