"""What was found, for a person: plain text from the document."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

Document = Mapping[str, Any]

NOTHING = "-"


def make_text(document: Document) -> str:
    """All sections, an empty line between two."""
    sections = [_summary(document), _findings(document["findings"], document["splits"]), _splits(document["splits"])]
    return "\n\n".join(filter(None, [*sections, _problems(document["problems"])])) + "\n"


def _summary(document: Document) -> str:
    per_patient, lines = document["images_per_patient"], document["lines"]
    rows = [
        ["images", f"{document['images']:,} of {document['patients']:,} patients"],
        ["images of a patient", f"{per_patient['mean']:.2f} in the mean, {per_patient['most']:,} at most"],
        ["lines", f"{lines['total']:,}; {lines['repeated']:,} repeated, {lines['contradicting']:,} contradicting"],
        *([name, _counts(document[name])] for name in ("sex", "view", "age")),
        ["other findings", f"{document['other_findings']:,} different"],
        *_files(document["files"]),
    ]
    return _align(rows, numbers=False)


def _files(files: Optional[Mapping[str, Any]]) -> List[List[str]]:
    if files is None:
        return [
            ["files", "none looked at: images without row, rows without image, pixel formats, equal files not known"]
        ]
    return [
        ["archives", f"{files['archives']:,}; {files['bytes'] / 1e9:.2f} GB with the files in images/"],
        ["images", f"{files['images']:,}: {_counts(files['modes'])}"],
        [
            "other files",
            f"{files['not_images']:,} named .png or .jpg that are none, {files['other_files']:,} of other names",
        ],
        ["without row", f"images: {files['images_without_row']:,}"],
        ["without image", f"rows: {files['rows_without_image']:,}"],
        [
            "twice",
            f"names: {files['names_twice']:,}; files that equal an earlier one: {files['same_bytes']:,}, "
            f"{files['same_bytes_of_other_patient']:,} of them another patient's",
        ],
    ]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _findings(findings: Sequence[Mapping[str, Any]], splits: Sequence[Mapping[str, Any]]) -> str:
    """Positives of each finding, and how the splits divide them."""
    heads = [f"by {split['by']}: {'/'.join(_used_parts(split))}" for split in splits]
    rows = [["finding", "images", "share", "patients", *heads]]
    for finding in findings:
        counts = f"{finding['images']:,}", f"{finding['prevalence']:.2%}", f"{finding['patients']:,}"
        rows.append([finding["name"], *counts, *(_positives(split, finding["name"]) for split in splits)])
    return _align(rows)


def _used_parts(split: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: part for name, part in split["parts"].items() if part["images"]}


def _positives(split: Mapping[str, Any], finding: str) -> str:
    return " / ".join(f"{part['positives'][finding]:,}" for part in _used_parts(split).values())


def _splits(splits: Sequence[Mapping[str, Any]]) -> str:
    """A column for each split."""
    if not splits:
        return ""
    columns = [["split by", *_SPLIT_ROWS], *([split["by"], *_split_column(split)] for split in splits)]
    lines = [_align([list(row) for row in zip(*columns)]), *_SPLIT_NOTES]
    means = [f"  by {split['by']}: means of {split['floors']['seeds']} seeds" for split in splits]
    return "\n".join([*lines, *(mean for mean, split in zip(means, splits) if split["floors"]["seeds"] > 1)])


_SPLIT_NOTES = (
    "Loss and AUROC are what a guess reaches on the test part that sees no pixel:",
    "  prevalence: the training part's; metadata: logistic regression on view, age, sex, follow-up number;",
    "  patient memory: the labels of the same patient's training images",
)

_SPLIT_ROWS = (
    "images: train",
    "validation",
    "test",
    "patients: train",
    "validation",
    "test",
    "patients in several parts",
    "images with their patient in train",
    "by prevalence: loss",
    "  with No Finding",
    "by metadata: AUROC",
    "  with No Finding",
    "by patient memory: AUROC",
    "  with No Finding",
    "by patient memory: loss",
    "  with No Finding",
)


def _split_column(split: Mapping[str, Any]) -> List[str]:
    parts, floors = split["parts"].values(), split["floors"]
    held_out = sum(part["images"] for name, part in split["parts"].items() if name != "train")
    return [
        *(f"{part['images']:,}" for part in parts),
        *(f"{part['patients']:,}" for part in parts),
        f"{split['patients_in_several_parts']:,}",
        f"{split['leaked_images']:,} ({split['leaked_images'] / held_out:.1%})",
        _figure(floors["loss"]),
        _figure(floors["loss_with_no_finding"]),
        *_auroc(floors["metadata_auroc"]),
        *_auroc(floors["memory_auroc"]),
        _figure(floors["memory_loss"]),
        _figure(floors["memory_loss_with_no_finding"]),
    ]


def _auroc(figures: Optional[Mapping[str, Any]]) -> List[str]:
    return [_figure((figures or {}).get(name)) for name in ("macro", "macro_with_no_finding")]


def _figure(value: Optional[float]) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _problems(problems: Sequence[str]) -> str:
    return "\n".join(["Preparation would fail:", *(f"  {problem}" for problem in problems)]) if problems else ""


def _align(rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """Rows as columns two spaces apart; all but the first to the right if they are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(
            cell.rjust(width) if numbers and place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
