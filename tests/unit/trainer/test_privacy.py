"""No patient's number and no image's name leaves the data's own volume, whatever goes wrong."""

from __future__ import annotations

import io
import json
import signal
import socket
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.trainer.build import image_name, label_line, make_png, run_document, write_archive, write_labels
from xray_trainer import __main__ as program
from xray_trainer.progress import Progress
from xray_trainer.progress_server import serve

CANARY = 87654321
NAME = f"{CANARY:08d}_000.png"
PATIENT = "Canary Smith"
"""Of other people's labels, where nothing needs to have a digit."""
PIXELS = b"PIXELCANARY!"
"""Grey values of the films' rows, which are letters too."""
STORED_SIZE = 36
"""Films of this size are cached as they are."""


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
    told += "".join(path.read_text() for path in (tmp_path / "cache").glob("*/*.json"))
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

    monkeypatch.setattr("xray_trainer.prepare.build.split_images", bug)
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


def film() -> bytes:
    row = np.frombuffer(PIXELS * (STORED_SIZE // len(PIXELS)), np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.tile(row, (STORED_SIZE, 1))).save(file, format="PNG")
    return file.getvalue()


def films_and_a_bad_one(root: Path) -> None:
    """Patients who all have the canary's digits in their number, and PATIENT as a finding that the run doesn't ask for."""
    patients = [*range(CANARY * 10, CANARY * 10 + 12)]
    findings = ["Mass|Edema", "Effusion", "No Finding", f"Mass|{PATIENT}"]
    write_labels(root, [label_line(patient, 0, findings[index % 4]) for index, patient in enumerate(patients)])
    members = [(image_name(patient), film()) for patient in patients[:-1]]
    write_archive(root / "images_001.tar.gz", [*members, (image_name(patients[-1]), PIXELS + str(CANARY).encode())])


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Volume:
    """A run on one volume, whose commands are called as containers call them, and all that they tell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[bytes] = []

    def run(self, command: str) -> dict[str, Any]:
        """Its termination message. Its metrics and progress are read at its end."""
        run_file, result = self.folder / "run.json", self.folder / "result.json"
        document = {**run_document(self.folder), "progress_port": free_port()}
        document["checkpoint"]["every_steps"] = 1
        run_file.write_text(json.dumps(document))
        program.main([command, "--run-file", str(run_file), "--result-file", str(result)])
        self.told.append(result.read_bytes())
        for page in ("progress", "metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{document['progress_port']}/{page}", timeout=5) as answer:
                self.told.append(answer.read())
        self.told += [path.read_bytes() for path in (self.folder / "out").glob("**/*") if path.is_file()]
        message: dict[str, Any] = json.loads(result.read_text())
        return message

    def shards(self) -> list[Path]:
        return [*(self.folder / "cache").glob("*/*.arrow")]


@pytest.fixture
def _signals_as_before() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("environment_as_before", "_signals_as_before")
def test_a_whole_run_tells_no_patient_and_no_pixel(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    films_and_a_bad_one(tmp_path / "nih")
    volume = Volume(tmp_path)
    prepared = volume.run("prepare")
    assert (prepared["images"], prepared["rejected"]) == (11, 1)
    assert any(PIXELS in shard.read_bytes() for shard in volume.shards()), "where they belong, they are found"
    assert volume.run("train")["exit_code"] == 0
    (tmp_path / "out" / "result.json").unlink()
    for shard in volume.shards():
        shard.write_bytes(shard.read_bytes()[:-STORED_SIZE])
    assert volume.run("train")["exit_code"] == 11
    told = b"".join(volume.told) + caplog.text.encode() + "".join(capfd.readouterr()).encode()
    assert b"auroc_macro" in told
    for secret in (str(CANARY).encode(), PATIENT.encode(), PIXELS, PIXELS.hex(" ").encode()):
        assert secret not in told
