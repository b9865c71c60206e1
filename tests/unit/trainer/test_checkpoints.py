"""Checkpoints: whole or absent, and none that isn't as it was written is trained from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.trainer.build import TRAINER, ipu_run_document, make_run_file
from xray_trainer.checkpoints import Checkpoints, training_digest
from xray_trainer.config import parse_run_file
from xray_trainer.files import ABANDONED_SECONDS

FILES = {"model.safetensors": b"weights", "optimizer.pt": b"moments", "empty": b""}


def fill(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


def open_checkpoints(folder: Path, keep: int = 2, training: str = "mine", version: str = "1") -> Checkpoints:
    return Checkpoints(folder, keep, training, {"torch": version})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_found_again_and_older_ones_are_deleted(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    assert checkpoints.find() is None
    for step in (100, 200, 300):
        written = checkpoints.write(step, fill)
    assert names(tmp_path) == ["step-00000200", "step-00000300"]
    assert open_checkpoints(tmp_path).find() == written
    assert written.step == 300
    assert {name: (written.path / name).read_bytes() for name in FILES} == FILES


def flip(path: Path) -> None:
    content = bytearray((path / "optimizer.pt").read_bytes())
    content[0] ^= 1
    (path / "optimizer.pt").write_bytes(content)


def truncate(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"weigh")


def lose_a_file(path: Path) -> None:
    (path / "optimizer.pt").unlink()


def add_a_file(path: Path) -> None:
    (path / "pytorch_model.bin").write_bytes(b"a pickle")


def lose_the_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def cut_the_manifest(path: Path) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text()[:100])


def claim_another_step(path: Path) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "step": 900}))


def belong_to_another_training(path: Path) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "training": "other"}))


def be_no_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


DAMAGES = [
    flip,
    truncate,
    lose_a_file,
    add_a_file,
    lose_the_manifest,
    cut_the_manifest,
    claim_another_step,
    belong_to_another_training,
    be_no_folder,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_or_foreign_checkpoint_is_passed_over_with_a_word(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = open_checkpoints(tmp_path)
    older = checkpoints.write(100, fill)
    damage(checkpoints.write(200, fill).path)
    assert open_checkpoints(tmp_path).find() == older
    assert "step-00000200" in caplog.text


def test_a_passed_over_checkpoint_costs_no_whole_one_its_place(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    checkpoints.write(100, fill)
    flip(checkpoints.write(150, fill).path)
    checkpoints = open_checkpoints(tmp_path)
    checkpoints.find()
    checkpoints.write(200, fill)
    assert names(tmp_path) == ["step-00000100", "step-00000200"]


def test_a_step_that_is_done_anew_replaces_its_damaged_checkpoint(tmp_path: Path) -> None:
    flip(open_checkpoints(tmp_path).write(100, fill).path)
    checkpoints = open_checkpoints(tmp_path)
    assert checkpoints.find() is None
    again = checkpoints.write(100, fill)
    assert open_checkpoints(tmp_path).find() == again
    assert names(tmp_path) == ["step-00000100"]


def test_a_checkpoint_that_proves_useless_gives_its_place_to_the_one_before(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    older = checkpoints.write(100, fill)
    checkpoints.write(200, fill)
    checkpoints.withdraw(250)
    assert names(tmp_path) == ["step-00000100", "step-00000200"]
    checkpoints.withdraw(200)
    assert names(tmp_path) == ["step-00000100"]
    assert checkpoints.latest == older


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_interrupts_a_write_leaves_the_older_ones_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    checkpoints = open_checkpoints(tmp_path)
    older = checkpoints.write(100, fill)

    def interrupted(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(error):
        checkpoints.write(200, interrupted)
    assert names(tmp_path) == ["step-00000100"]
    assert checkpoints.latest == open_checkpoints(tmp_path).find() == older


def test_a_write_that_was_killed_is_never_found_and_deleted_in_time(tmp_path: Path) -> None:
    older = open_checkpoints(tmp_path).write(100, fill)
    half = tmp_path / ".tmp-1"
    shutil.copytree(older.path, half)
    assert open_checkpoints(tmp_path).find() == older
    assert half.exists()
    for path in (half, *half.iterdir()):
        long_ago = path.stat().st_mtime - ABANDONED_SECONDS - 60
        os.utime(path, (long_ago, long_ago))
    assert open_checkpoints(tmp_path).find() == older
    assert not half.exists()


def test_other_versions_of_the_libraries_are_told_and_no_obstacle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = open_checkpoints(tmp_path, version="1").write(100, fill)
    assert open_checkpoints(tmp_path, version="2").find() == written
    assert "other versions" in caplog.text


FILL_THE_DISK = """
import sys
from pathlib import Path
from xray_trainer.checkpoints import Checkpoints
from xray_trainer.errors import DiskFullError

def fill(folder):
    (folder / "model.safetensors").write_bytes(bytes(1_500_000))

def fail_in_words_of_its_own(folder):
    try:
        fill(folder)
    except OSError:
        raise RuntimeError("file write failed")

checkpoints = Checkpoints(Path(sys.argv[1]), 2, "mine", {})
older = checkpoints.write(100, fill)
for too_much in (fill, fail_in_words_of_its_own):
    try:
        checkpoints.write(200, too_much)
    except DiskFullError as error:
        print(error)
assert Checkpoints(Path(sys.argv[1]), 2, "mine", {}).find() == older
"""


def test_a_full_disk_is_told_as_such_and_leaves_the_older_ones(tmp_path: Path) -> None:
    """On a file system of 2 MB, in a mount namespace of its own."""
    script = f'mount -t tmpfs -o size=2m tmpfs "{tmp_path}" && exec "{sys.executable}" -c "$0" "{tmp_path}"'
    told = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, FILL_THE_DISK],
        env={**os.environ, "PYTHONPATH": str(TRAINER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("checkpoint of step 200") == 2
    assert told.stdout.count("no space left") == 2


def test_a_training_is_the_same_wherever_it_runs_and_another_with_other_settings_or_data(tmp_path: Path) -> None:
    first = training_digest(make_run_file(tmp_path / "a"), "data", "split")
    moved = make_run_file(tmp_path / "b", run={"uid": "2", "rerun": 1}, checkpoint={"every_steps": 7})
    assert training_digest(moved, "data", "split") == first
    others = [
        training_digest(make_run_file(tmp_path, training={"seed": 1}), "data", "split"),
        training_digest(make_run_file(tmp_path, dataset={"findings": ["Mass"]}), "data", "split"),
        training_digest(make_run_file(tmp_path), "other data", "split"),
        training_digest(make_run_file(tmp_path), "data", "other split"),
    ]
    assert len({first, *others}) == 5


def test_backends_read_no_checkpoints_of_each_other(tmp_path: Path) -> None:
    document = ipu_run_document(tmp_path)
    on_ipus = training_digest(parse_run_file(document), "data", "split")
    elsewhere = {**document["ipu"], "executables_dir": "/other", "image": "other"}
    assert training_digest(parse_run_file({**document, "ipu": elsewhere}), "data", "split") == on_ipus
    plain = {**document["ipu"], "overrides": {}}
    assert training_digest(parse_run_file({**document, "ipu": plain}), "data", "split") != on_ipus
    del document["ipu"]
    assert training_digest(parse_run_file({**document, "backend": "torch"}), "data", "split") != on_ipus


def test_checkpoints_need_no_torch() -> None:
    code = "import sys; sys.modules.update(torch=None, transformers=None); import xray_trainer.checkpoints"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(TRAINER)}, check=True)
