"""README.md of a model folder: a model card as the Hugging Face hub reads it.

https://huggingface.co/docs/hub/model-cards tells the metadata at its head.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

import yaml

from xray_trainer.config import Dataset, RunFile
from xray_trainer.findings import NIH_FINDINGS
from xray_trainer.prepare.cache import Manifest
from xray_trainer.prepare.pinned import PinnedModel

CARD = "README.md"
CHEST_XRAY14 = "NIH ChestX-ray14"
LABELS_FILE = "Data_Entry_2017_v2020.csv"
"""Of that set, and of those who lay theirs out alike."""
WARNING = """**Research software, not a medical device and no substitute for a doctor.** It must not be used to diagnose or
treat anyone."""
TAGS = ("chest-x-ray", "radiology", "multi-label-classification", "vision-transformer", "xray-operator")
SPLITS = {
    "Patient": "by patient: nobody is in two parts",
    "Official": "by NIH's own lists, the validation part by patient: nobody is in two parts",
    "Image": "by image: **patients are in several parts**, so the figures tell too much of patients that were seen in training",
}
MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!])")


@dataclass(frozen=True)
class Facts:
    """What a card tells of."""

    run_file: RunFile
    manifest: Manifest
    base: Optional[PinnedModel]
    """The hub model that it began with."""
    result: Mapping[str, Any]
    """As the termination message has it."""
    evaluation: Mapping[str, Any]
    """evaluation.json."""
    versions: Mapping[str, str]


def make_card(facts: Facts) -> str:
    """The whole file, as Markdown."""
    head = yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True)
    title = f"# {_plain(facts.run_file.run.name)}"
    parts = (
        title,
        WARNING,
        _what_it_is(facts),
        _use(facts),
        _limits(facts),
        _data(facts),
        _figures(facts),
        _how(facts),
    )
    return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"


def _metadata(facts: Facts) -> Dict[str, Any]:
    base = {"base_model": facts.run_file.model.hub_name} if facts.run_file.model.hub_name else {}
    return {
        "library_name": "transformers",
        "pipeline_tag": "image-classification",
        # whoever publishes it decides, bound by the licenses of weights and data, of which a run knows nothing
        "license": "other",
        "license_name": "not-chosen-yet",
        "tags": list(TAGS),
        **base,
        "metrics": ["roc_auc"],
        "model-index": [{"name": facts.run_file.run.name, "results": [_index(facts)]}],
    }


def _index(facts: Facts) -> Dict[str, Any]:
    measured = [finding for finding in facts.result["findings"] if finding["auroc"] is not None]
    macro = facts.result["auroc_macro"]
    return {
        "task": {"type": "image-classification", "name": "Findings of chest X-rays, several of one"},
        "dataset": {"name": data_name(facts.run_file.dataset), "type": "chest-x-ray", "split": "test"},
        "metrics": [
            *([_metric("AUROC, mean of the findings", macro)] if macro is not None else []),
            *(_metric(f"AUROC {finding['name']}", finding["auroc"]) for finding in measured),
        ],
    }


def _metric(name: str, value: float) -> Dict[str, Any]:
    return {"type": "roc_auc", "name": name, "value": float(value)}  # YAML knows no kind of number of numpy


def data_name(dataset: Dataset) -> str:
    """What the images are, as far as a run can know it."""
    if dataset.synthetic is not None:
        return "generated X-rays"
    if dataset.http is not None and dataset.http.list is None:
        return CHEST_XRAY14
    return (
        f"X-rays in the layout of {CHEST_XRAY14}" if dataset.labels.file == LABELS_FILE else "X-rays of the run's own"
    )


def _what_it_is(facts: Facts) -> str:
    findings = ", ".join(map(_plain, facts.run_file.dataset.findings))
    base = facts.run_file.model.hub_name
    begin = (
        f"from {_plain(base)}"
        if base
        else "from random weights"
        if facts.run_file.model.config
        else "from a model on a claim"
    )
    commit = f" at commit {facts.base.commit}" if facts.base else ""
    return (
        f"A Vision Transformer, fine-tuned {begin}{commit}. For a chest X-ray it has a score from 0 to 1 for each of: "
        f"{findings}. Scores are independent of each other and are no probabilities of an illness."
    )


def _use(facts: Facts) -> str:
    marks = "`thresholds.json` has the score from which each finding counts as found, fixed on the validation images."
    size = facts.run_file.dataset.stored_size
    return f"""## Use

```python
from transformers import AutoImageProcessor, AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained(folder)
processor = AutoImageProcessor.from_pretrained(folder)
scores = model(**processor(image, return_tensors="pt")).logits.sigmoid()  # image: of PIL, 8-bit
```

{marks}
`xray-predict --model FOLDER IMAGES` of the package xray-trainer does all of it, 16-bit images included, and scales as the
training images were scaled: by the mean of the pixels that become one. The image processor's own scaling, bicubic to
{size} x {size}, differs from that by about one of 256 grey values."""


def _limits(facts: Facts) -> str:
    noisy = (
        "Labels of ChestX-ray14 were mined from reports by a program, not read from films, and are wrong in places."
        if set(facts.run_file.dataset.findings) <= {*NIH_FINDINGS, "No Finding"}
        else "How the labels came about decides what the scores mean; this file can't know it."
    )
    synthetic = (
        "\n- It was trained on *generated* X-rays and knows nothing of real ones."
        if facts.run_file.dataset.synthetic
        else ""
    )
    emulated = (
        "\n- It was trained on emulated IPUs, which the CPU stood in for."
        if "emulated" in facts.result["device"]
        else ""
    )
    return f"""## Intended use and limits

Meant for research on training and evaluation, and for teaching.

- Not for decisions on patients, not for triage, not for screening.
- {noisy}
- Hospitals, machines and patients other than those of its data: not measured. A model may read the machine, the hospital
  or the posture in place of the illness.
- It answers to every image, photographs of cats included.{synthetic}{emulated}"""


def _data(facts: Facts) -> str:
    rows = [f"| {name} | {part.images:,} | {part.patients:,} |" for name, part in facts.manifest.parts.items()]
    split = facts.run_file.dataset.split
    return "\n".join(
        [
            "## Data",
            "",
            f"{_plain(data_name(facts.run_file.dataset))}, divided {SPLITS[split.by]} (seed {split.seed}).",
            "",
            "| part | images | patients |",
            "|---|--:|--:|",
            *rows,
        ]
    )


def _figures(facts: Facts) -> str:
    result = facts.result
    mean, loss, floor = (_number(result[name]) for name in ("auroc_macro", "loss", "loss_floor"))
    metadata, memory = (_number(facts.evaluation["floors"][name]) for name in ("metadata_auroc", "memory_auroc"))
    lines = [
        "## Figures on the held-out images",
        "",
        f"AUROC, mean over the findings ({result['findings_evaluated']}): **{mean}**{_interval(facts.evaluation)}.",
        f"Without looking at a film, age, sex and view reach {metadata}, and the labels of the same patient's other films "
        f"{memory}: only what is clearly above both was read from pixels.",
        f"Loss {loss}; a guess by prevalence alone, which sees no pixel, has {floor}.",
        "",
        "| finding | positives | AUROC | 95 % interval | threshold |",
        "|---|--:|--:|--:|--:|",
    ]
    measured = {finding["name"]: finding for finding in facts.evaluation["findings"]}
    return "\n".join([*lines, *(_line(finding, measured[finding["name"]]) for finding in result["findings"])])


def _line(finding: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    interval = measured["auroc_interval"]
    cells: List[str] = [
        _plain(finding["name"]),
        f"{finding['positives']:,}",
        _number(finding["auroc"]),
        "–" if interval is None else _range(interval),
        _number(measured["threshold"]),
    ]
    return f"| {' | '.join(cells)} |"


def _interval(evaluation: Mapping[str, Any]) -> str:
    interval = evaluation["macro"]["auroc_interval"]
    return "" if interval is None else f" (95 % interval, patients resampled: {_range(interval)})"


def _range(interval: Sequence[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _how(facts: Facts) -> str:
    training = facts.run_file.training
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return (
        f"## How it was trained\n\n{training.epochs} epochs of batches of {training.global_batch_size} on "
        f"{facts.result['device']}, learning rate {training.learning_rate:g} ({training.scheduler}), seed {training.seed}. "
        f"With {versions}.\n\n`result.json` beside this folder has the run file, digests and versions that repeat it."
    )


def _number(value: Optional[float]) -> str:
    return "–" if value is None else f"{value:.3f}"


def _plain(text: str) -> str:
    """A name in Markdown, whatever it holds."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))
