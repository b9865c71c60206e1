"""No patient's number and no image's name leaves the data's own volume, whatever goes wrong."""

from __future__ import annotations

import json
import tarfile
import urllib.request
from pathlib import Path

import pytest

from tests.unit.trainer.build import label_line, make_png, run_document, write_archive, write_labels
from xray_trainer import __main__ as program
from xray_trainer.progress import Progress, serve

CANARY = 87654321
NAME = f"{CANARY:08d}_000.png"
PATIENT = "Canary Smith"
"""Of other people's labels, where nothing needs to have a digit."""


def good(root: Path) -> None:
    write_labels(root, [label_line(CANARY), label_line(2), label_line(3)])
    write_archive(
        root / "images_001.tar.gz", [(NAME, make_png()), *((f"0000000{n}_000.png", make_png()) for n in (2, 3))]
    )


def unreadable(root: Path) -> None:
    write_labels(root, [label_line(CANARY)])
    write_archive(root / "images_001.tar.gz", [(NAME, make_png()[:-50])])


def without_label(root: Path) -> None:
    write_labels(root, [label_line(1)])
    write_archive(root / "images_001.tar.gz", [(NAME, make_png())])


def truncated(root: Path) -> None:
    good(root)
    archive = root / "images_001.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-300])


def leading_out(root: Path) -> None:
    write_labels(root, [label_line(CANARY)])
    write_archive(root / "images_001.tar.gz", [(f"../../{NAME}", make_png())])


def hostile_header(root: Path) -> None:
    """What tarfile says of it quotes the field."""
    write_labels(root, [label_line(CANARY)])
    with tarfile.open(root / "images_001.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(NAME)
        info.pax_headers = {"GNU.sparse.size": NAME}
        archive.addfile(info)


def contradicting_labels(root: Path) -> None:
    good(root)
    write_labels(root, [label_line(CANARY), label_line(CANARY, findings="Edema")])


def headless_labels(root: Path) -> None:
    good(root)
    write_labels(root, [], header=label_line(CANARY))


def headless_labels_without_a_digit(root: Path) -> None:
    good(root)
    write_labels(root, [], header=f"{PATIENT}.png,Effusion,{PATIENT}")


def names_in_the_column_of_findings(root: Path) -> None:
    good(root)
    write_labels(root, [label_line(CANARY, film, findings=PATIENT) for film in range(9)])


def folder_in_place_of_an_image(root: Path) -> None:
    good(root)
    (root / "images").mkdir()
    (root / "images" / NAME).symlink_to(root / "images_001.tar.gz" / NAME)


def two_patients(root: Path) -> None:
    write_labels(root, [label_line(CANARY), label_line(2)])
    write_archive(root / "images_001.tar.gz", [(NAME, make_png()), ("00000002_000.png", make_png())])


CASES = [
    good,
    unreadable,
    without_label,
    truncated,
    leading_out,
    hostile_header,
    contradicting_labels,
    headless_labels,
    headless_labels_without_a_digit,
    names_in_the_column_of_findings,
    folder_in_place_of_an_image,
    two_patients,
]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_prepare_tells_no_patient(
    tmp_path: Path, make: object, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(make)
    make(tmp_path / "nih")
    run_file, result = tmp_path / "run.json", tmp_path / "result.json"
    run_file.write_text(json.dumps(run_document(tmp_path)))
    program.main(["prepare", "--run-file", str(run_file), "--result-file", str(result)])
    told = result.read_text() + caplog.text + "".join(capfd.readouterr())
    told += "".join(path.read_text() for path in (tmp_path / "out").glob("*") if path.is_file())
    told += "".join(path.read_text() for path in (tmp_path / "cache").glob("*/*") if path.suffix in (".json", ".csv"))
    assert str(CANARY) not in told
    assert PATIENT not in told
    assert len(told) > 100


def test_a_bug_s_traceback_tells_no_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    good(tmp_path / "nih")
    run_file, result = tmp_path / "run.json", tmp_path / "result.json"
    run_file.write_text(json.dumps(run_document(tmp_path)))

    def bug(*_: object) -> None:
        raise KeyError(NAME)

    monkeypatch.setattr("xray_trainer.prepare.run.split_images", bug)
    code = program.main(["prepare", "--run-file", str(run_file), "--result-file", str(result)])
    told = "".join(capfd.readouterr())
    assert code == 1
    assert "Traceback" in told
    assert "split_images" in told
    assert str(CANARY) not in told + result.read_text()


def test_progress_and_metrics_tell_no_patient(tmp_path: Path) -> None:
    from tests.unit.trainer.build import make_run_file
    from xray_trainer.prepare.run import prepare

    good(tmp_path / "nih")
    progress = Progress("Preparing")
    port = serve(progress, 0, "127.0.0.1")
    prepare(make_run_file(tmp_path), progress)
    for page in ("progress", "metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as answer:
            assert str(CANARY) not in answer.read().decode()
