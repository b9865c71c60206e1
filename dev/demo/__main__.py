"""`make demo`: from nothing to a trained model and its price, on a real cluster. Run by people; prints a table.

README.md tells of the environment that it reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dev.cluster.__main__ import PROVIDERS
from dev.cluster.state import ClusterError, say, step
from dev.demo.stack import (
    IMAGES,
    REPOSITORY,
    Kube,
    Manifest,
    build_images,
    claim,
    install_chart,
    namespace,
    provider_of_cluster,
    remove_claim,
    restricted_pod,
    run_pod_job,
    start_cluster,
)

NAMESPACE = "xray-demo"
JOB = "demo"
OUTPUT = REPOSITORY / "build" / "demo"
REPORT = OUTPUT / "report.html"
CLI = REPOSITORY / "build" / "cli"
LABELS_FILE = "Data_Entry_2017_v2020.csv"
GENERATED = 800
"""X-rays to generate: enough for a small model to learn from, little enough for a warm run of minutes on 2 cores."""
COUNTS = range(60, 50_001)
"""What XRAY_COUNT may be. 60 are the fewest that tests train on; more than 50,000, of 375 kB each, overfill the claim."""
EXAMPLES = 40_000
"""Training examples after which the small model has learnt the generated findings (measured: AUROC 0.89)."""
SHOWN = ("loss", "validation_auroc_macro")
PHASES = ("queued", "preparing", "compiling", "training", "evaluating")
"""As they follow on each other; the API server gives them by the alphabet."""


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


@dataclass(frozen=True)
class DataSet:
    """The X-rays of the demo: a folder of somebody's own, or generated ones."""

    folder: Path | None
    images: int
    """Rows of the label table, or images to generate."""

    @property
    def claim(self) -> str:
        """Another folder, or another number of generated images, is another claim."""
        if self.folder is None:
            return f"xrays-{self.images}"
        return f"nih-{hashlib.sha256(bytes(self.folder)).hexdigest()[:8]}"

    @property
    def epochs(self) -> int:
        """As many passes as make about EXAMPLES training examples, one at least."""
        return max(1, min(70, round(EXAMPLES / max(1.0, 0.7 * self.images))))

    @property
    def deadline_seconds(self) -> float:
        """Far above what 2 cores need: decoding takes about 0.01 s per image and core, training less."""
        return 1800 + 0.1 * self.images


def choose_data(environment: Mapping[str, str]) -> DataSet:
    """Raises: ClusterError if NIH_DIR holds no data set in NIH layout, or XRAY_COUNT is none of COUNTS."""
    name = environment.get("NIH_DIR")
    if not name:
        return DataSet(None, count_of_xrays(environment.get("XRAY_COUNT") or str(GENERATED)))
    folder = Path(name).resolve()
    labels = folder / LABELS_FILE
    if not labels.is_file() or not ((folder / "images").is_dir() or any(folder.glob("images_*.tar.gz"))):
        raise ClusterError(f"NIH_DIR: {folder}: expected {LABELS_FILE} beside images_*.tar.gz or images/")
    with labels.open("rb") as rows:
        return DataSet(folder, sum(1 for _ in rows) - 1)


def count_of_xrays(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) in COUNTS):
        raise ClusterError(f"XRAY_COUNT: {text!r}; expected a whole number from {COUNTS[0]} to {COUNTS[-1]}")
    return int(text)


def choose_cluster(environment: Mapping[str, str]) -> tuple[str, str]:
    """Returns: provider and registry, as `dev/cluster up` takes them. Raises: ClusterError for what it doesn't take."""
    provider, registry = environment.get("PROVIDER") or "auto", environment.get("REGISTRY", "")
    if provider not in PROVIDERS:
        raise ClusterError(f"PROVIDER: {provider!r}; expected one of {', '.join(PROVIDERS)}")
    if provider == "kubeconfig" and not registry:
        raise ClusterError("REGISTRY: empty; expected HOST/PATH with PROVIDER=kubeconfig, to push to and to pull from")
    return provider, registry


def main() -> int:
    watch = Stopwatch()
    data = choose_data(os.environ)
    provider, registry = choose_cluster(os.environ)
    with watch.measure("cluster with 4 stand-in IPUs"):
        kube = start_cluster(4, provider, registry)
    if data.folder and provider_of_cluster() != "local":
        raise ClusterError(f"NIH_DIR: the nodes of a {provider_of_cluster()} cluster don't see this machine's folders")
    with watch.measure("images: " + ", ".join(IMAGES)):
        images = build_images(*IMAGES, registry=registry)
    with watch.measure("chart"):
        install_chart(kube, images)
    with watch.measure("X-rays from NIH_DIR" if data.folder else "X-rays, generated"):
        kube.apply(namespace(NAMESPACE))
        provide_xrays(kube, images["prepare"], data)
        forget_former_run(kube)
        claim(kube, NAMESPACE, "results")
    with watch.measure("training job"):
        job = run_job(kube, demo_job(data), data.deadline_seconds)
    with watch.measure("outputs fetched"):
        fetch_outputs(kube, job)
    summary = summarise(job, watch)
    OUTPUT.joinpath("summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(table(job, watch))
    return 0 if summary["state"] == "Succeeded" else 1


def provide_xrays(kube: Kube, image: str, data: DataSet) -> None:
    """Make the claim with the data set; generated ones are made once and kept."""
    claim(kube, NAMESPACE, data.claim, data.folder)
    if data.folder is None:
        arguments = ["synthesize", "--out", "/data", "--images", str(data.images), "--seed", "7"]
        pod = restricted_pod(image, arguments, {data.claim: "/data"})
        name = f"generate-{data.images}-{image.rpartition(':')[2]}"
        run_pod_job(kube, NAMESPACE, name, pod, data.deadline_seconds)


def forget_former_run(kube: Kube) -> None:
    """Or this one would find the finished result and train nothing."""
    kube.kubectl("delete", "xraytrainingjob", JOB, "-n", NAMESPACE, "--ignore-not-found", "--cascade=foreground")
    remove_claim(kube, NAMESPACE, "results")


def demo_job(data: DataSet) -> str:
    """The example manifest, on the claim that holds the data, with epochs for its size."""
    text = (REPOSITORY / "examples" / "demo.yaml").read_text()
    return text.replace("claimName: xrays", f"claimName: {data.claim}").replace("epochs: 70", f"epochs: {data.epochs}")


def run_job(kube: Kube, manifest: str, deadline_seconds: float) -> Manifest:
    """Apply the job and follow it to its end. Returns: the finished resource."""
    kube.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=manifest)
    deadline = time.monotonic() + deadline_seconds
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
        f"xraytrainingjob/{JOB}: {shown!r} after {deadline_seconds:.0f} s; kubectl -n {NAMESPACE} describe xtj"
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


def fetch_outputs(kube: Kube, job: Manifest) -> None:
    """Bring the run's folder, with the report and the model, into build/demo, as a user would: `kubectl xray report`."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    if "results" not in job["status"]:
        return
    words = ["-m", "xray_cli", "report", JOB, "--namespace", NAMESPACE, "--all", "--output-dir", str(OUTPUT)]
    environment = {**kube.environment, "PYTHONPATH": str(REPOSITORY / "operator")}
    Kube(environment).run(python_of_cli(), *words)


def python_of_cli() -> str:
    """A Python that has what the command line stands on: that of the tests where there is one, else one of its own."""
    for folder in (REPOSITORY / ".venv", CLI):
        python = str(folder / "bin" / "python")
        imports = [python, "-c", "import typer, rich, kubernetes"]
        if folder.is_dir() and subprocess.run(imports, capture_output=True, check=False).returncode == 0:
            return python
    with step("kubectl xray, in build/cli"):
        subprocess.run([sys.executable, "-m", "venv", "--clear", CLI], check=True)
        subprocess.run([CLI / "bin" / "pip", "install", "--quiet", f"{REPOSITORY}[cli]"], check=True)
    return str(CLI / "bin" / "python")


def summarise(job: Manifest, watch: Stopwatch) -> dict[str, Any]:
    """What a program wants to know of the demo; amounts and metrics as the status has them, null where it has none."""
    status = job["status"]
    results, data = status.get("results", {}), status.get("data", {})
    auroc = results.get("aurocMacro")
    return {
        "state": status["state"],
        "auroc_macro": float(auroc) if auroc is not None else None,
        "findings_evaluated": results.get("findingsEvaluated"),
        "cost": {key: status.get("cost", {}).get(key) for key in ("total", "currency", "billedSeconds")},
        "times": {
            "phases": seconds_of_phases(status),
            "steps": {what: round(seconds, 1) for what, seconds in watch.rows},
        },
        "images": data.get("images"),
        "preparation": status.get("preparation"),
        "runs_on": status.get("runsOn"),
        "outputs": str(OUTPUT.relative_to(REPOSITORY)),
        "report": str(REPORT.relative_to(REPOSITORY)) if REPORT.exists() else None,
    }


def seconds_of_phases(status: dict[str, Any]) -> dict[str, int | None]:
    """Of the phases that the job went through, in their order; None where the end was not seen."""
    times = status.get("times", {})
    return {name: times[name].get("seconds") for name in PHASES if name in times}


def table(job: Manifest, watch: Stopwatch) -> str:
    """The demo's last words to a person."""
    status = job["status"]
    results, data, cost, run = (status.get(key, {}) for key in ("results", "data", "cost", "run"))
    rows = [("STEP", "SECONDS"), *((what, f"{seconds:.0f}") for what, seconds in watch.rows)]
    if preparation := status.get("preparation"):
        rows.append(("  of the job: data prepared, no accelerator held", str(preparation.get("seconds", "?"))))
    for phase, seconds in seconds_of_phases(status).items():
        name = "verifying" if preparation and phase == "preparing" else phase
        rows.append((f"  of the job: {name}", "?" if seconds is None else str(seconds)))
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
            "macro AUROC (floor)",
            f"{results.get('aurocMacro', 'none')} ({results.get('aurocFloor', 'none')}) "
            f"over {results.get('findingsEvaluated', 0)} findings",
        ),
        ("loss (floor)", f"{results.get('loss', 'none')} ({results.get('lossFloor', 'none')})"),
        ("cost", cost.get("display", "?")),
        ("of which preparing the data", preparation.get("cost", "?") if preparation else "in the same pod"),
        (
            "outputs",
            f"{OUTPUT.relative_to(REPOSITORY)}/ and claim {run.get('claimName', '?')}, folder {run.get('folder', '?')}",
        ),
        (
            "look at it",
            f'kubectl -n {NAMESPACE} describe xtj {JOB}   (eval "$(python3 dev/cluster env)" first)',
        ),
        ("report", str(REPORT) if REPORT.exists() else "none was written"),
    ]
    width = max(len(left) for left, _ in rows)
    return "\n" + "\n".join(f"{left:<{width}}  {right}".rstrip() for left, right in rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ClusterError as error:
        sys.exit(f"demo: {error}")
