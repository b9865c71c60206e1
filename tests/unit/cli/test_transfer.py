"""Files come out of a pod whole, or not at all; what comes is not trusted. The pod's part runs here as a process."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from xray_cli.errors import CommandError
from xray_cli.transfer import BrokenStreamError, Chunks, command, incoming, save


def fill(folder: Path) -> None:
    """A run's folder, with what is no result among it."""
    (folder / "model").mkdir(parents=True)
    (folder / "checkpoints" / "step-10").mkdir(parents=True)
    (folder / "report.html").write_text("<p>page</p>")
    (folder / "loss.png").write_bytes(bytes(range(256)) * 3000)
    (folder / "empty.png").write_bytes(b"")
    (folder / "model" / "README.md").write_text("card")
    (folder / "model" / "model.safetensors").write_bytes(b"\n" * 100_000)
    (folder / "checkpoints" / "step-10" / "weights").write_text("no result")
    (folder / ".result.json.tmp-1").write_text("half")
    (folder / "link.png").symlink_to("/etc/hostname")


def sent(folder: Path, wanted: list[str], present: list[str] | None = None) -> bytes:
    """What the pod would write."""
    words = command(str(folder), wanted, present or [])
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, check=True)
    return done.stdout


def received(data: bytes, target: Path, chunk: int = 1000) -> list[str]:
    """What arrives of these bytes, in chunks as a connection gives them."""
    chunks = (data[start : start + chunk] for start in range(0, len(data), chunk))
    return [save(f, target).relative_to(target).as_posix() for f in incoming(io.BufferedReader(Chunks(chunks)))]


@pytest.mark.parametrize("chunk", [1, 7, 32768])
def test_what_is_asked_for_arrives_as_it_was(tmp_path: Path, chunk: int) -> None:
    fill(tmp_path / "run")
    found = received(sent(tmp_path / "run", ["report.html", "empty.png", "model/README.md"]), tmp_path / "here", chunk)
    assert found == ["empty.png", "report.html", "model/README.md"]
    for path in found:
        assert (tmp_path / "here" / path).read_bytes() == (tmp_path / "run" / path).read_bytes()


@pytest.mark.parametrize(
    ("wanted", "present", "found"),
    [
        (["*.png"], [], ["empty.png", "loss.png"]),
        (["*.png"], ["loss.png"], ["empty.png"]),
        (["**"], ["loss.png"], ["empty.png", "report.html", "model/README.md", "model/model.safetensors"]),
        (["nothing"], [], []),
    ],
)
def test_patterns_find_results_and_no_links_nor_what_is_being_written(
    tmp_path: Path, wanted: list[str], present: list[str], found: list[str]
) -> None:
    fill(tmp_path / "run")
    assert received(sent(tmp_path / "run", wanted, present), tmp_path / "here") == found


def test_every_end_before_the_end_is_noticed_and_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.png").write_bytes(b"12345")
    data = sent(tmp_path / "run", ["*.png"])
    for cut in range(len(data)):
        target = tmp_path / f"cut-{cut}"
        with pytest.raises(BrokenStreamError):
            received(data[:cut], target)
        left = [path.read_bytes() for path in target.rglob("*") if path.is_file()]
        assert left in ([], [b"12345"])


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.png").write_bytes(b"12345")
    data = sent(tmp_path / "run", ["*.png"]).replace(b"12345", b"12845")
    with pytest.raises(BrokenStreamError, match="digest differs"):
        received(data, tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    "path", ["../up", "/etc/passwd", "a/../../b", "", "a\nb", "a\x1b[2J", 3, None, "a\\b", "\ud800"]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, path: object) -> None:
    data = json.dumps({"path": path, "size": 0}).encode() + b"\n" + json.dumps({"sha256": ""}).encode() + b"\n"
    with pytest.raises(CommandError, match="unusable name"):
        received(data, tmp_path / "here")


@pytest.mark.parametrize(
    "line", [b"[]\n", b"hello\n", b'{"path": "a", "size": -1}\n', b'{"path": "a"}\n', b'{"end": 1}\n']
)
def test_other_words_are_no_files(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(BrokenStreamError):
        received(line, tmp_path / "here")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.png").write_bytes(b"12345")
    (tmp_path / "here").write_text("a file")
    with pytest.raises(CommandError, match=r'the path ".*/here/a\.png" cannot be written: '):
        received(sent(tmp_path / "run", ["*.png"]), tmp_path / "here")
