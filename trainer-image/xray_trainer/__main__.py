"""Command line: `python3 -m xray_trainer prepare | prepare-data | prepare-model | train | synthesize | doctor | predict`.

Installed as a package, `xray-prepare doctor` and `xray-predict` are the same as the last two.

The one place that turns errors into exit codes, a line on stderr and the termination message.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Dict, List, Optional

from xray_trainer.config import (
    RunFile,
    parse_data_order,
    parse_labels_file,
    parse_model_order,
    parse_run_file,
    read_run_file,
)
from xray_trainer.errors import StoppedError, TrainerError
from xray_trainer.findings import NIH_FINDINGS, SEPARATOR
from xray_trainer.finished import find_finished
from xray_trainer.grace import TAKEN_UP_SECONDS, ended_before_killed
from xray_trainer.interruption import StopNow, StopSignal
from xray_trainer.progress import Progress
from xray_trainer.progress_server import serve
from xray_trainer.result import error_result, write_result

LOG = logging.getLogger("xray_trainer")

TERMINATION_LOG = Path("/dev/termination-log")
"""Where Kubernetes reads the termination message; the default only if it is there."""
ORDERED = ("prepare-data", "prepare-model")
"""Commands that serve several runs, and so have no run file."""
ORDERED_BY = "XRAY_ORDERED_BY"
"""Variable with the run file of the run that was the first to order, where its output folder can be seen."""


def main(arguments: Optional[List[str]] = None) -> int:
    """Run one command. Returns: its exit code, see errors.py."""
    options = make_parser().parse_args(arguments)
    _log_to_stderr()
    if options.command == "synthesize":
        return _synthesize(options)
    if options.command == "doctor":
        return _doctor(options)
    if options.command == "predict":
        return _predict(options)
    stop = StopSignal()
    progress = Progress("Training" if options.command == "train" else "Preparing")
    with ended_before_killed(stop, TAKEN_UP_SECONDS, lambda: _end_at_once(options, progress)):
        signal.signal(signal.SIGTERM, stop.handle)
        try:
            result = _finished_or_failed(options, progress, stop)
            stop.ignore()  # how it ended is settled
        except StopNow:
            error = StoppedError(f"{options.command}: stopped by SIGTERM before there was anything to save")
            result = error_result(error, progress.state.checkpoint)
    if options.result_file is not None:
        write_result(options.result_file, result)
    return int(result["exit_code"])


def _end_at_once(options: argparse.Namespace, progress: Progress) -> None:
    """End the process from another thread: the main one is in a call that may not come back before the pod is killed."""
    state = progress.state
    saved = state.checkpoint
    onwards = "there is no checkpoint" if saved is None else f"the checkpoint of step {saved['step']} is kept"
    error = StoppedError(
        f"{options.command}: stopped by SIGTERM; {state.phases[-1].name} came to no place to stop at within "
        f"{TAKEN_UP_SECONDS} s; {onwards}"
    )
    try:
        if options.result_file is not None:
            write_result(options.result_file, error_result(error, saved))
        LOG.error("%s: %s", error.reason, error)
    finally:
        os._exit(error.exit_code)


def predict() -> int:
    """The entry point xray-predict."""
    return main(["predict", *sys.argv[1:]])


def make_parser() -> argparse.ArgumentParser:
    """All commands and options."""
    parser = argparse.ArgumentParser(prog="xray_trainer", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("prepare", "read, check, scale and split the X-rays of a run"),
        ("prepare-data", "the same for every run that needs them"),
        ("prepare-model", "fetch a hub model for every run that needs it"),
        ("train", "train on the prepared X-rays"),
    ):
        command = commands.add_parser(name, help=text)
        if name in ORDERED:
            command.add_argument("--order", required=True, help="JSON that describes what to prepare")
        else:
            command.add_argument("--run-file", type=Path, required=True, help="JSON file that describes the run")
        if name == "prepare":
            command.add_argument(
                "--model-commit", help="of the hub model, as prepare-model has fetched it for this run"
            )
        default = TERMINATION_LOG if TERMINATION_LOG.exists() else None
        command.add_argument("--result-file", type=Path, default=default, help="file for the result as JSON")
    synthesize = commands.add_parser("synthesize", help="write generated X-rays in NIH layout")
    synthesize.add_argument("--out", type=Path, required=True, help="folder to write to")
    synthesize.add_argument("--images", type=int, required=True, help="number of images")
    synthesize.add_argument("--seed", type=int, required=True, help="same seed, same files")
    synthesize.add_argument("--size", type=int, default=1024, help="side of the images in pixels")
    synthesize.add_argument("--archives", type=int, default=1, help="number of images_NNN.tar.gz files")
    _add_doctor(commands.add_parser("doctor", help="tell what there is to know of a data set before it is trained on"))
    _add_predict(commands.add_parser("predict", help="tell what a trained model says of X-rays"))
    return parser


def _add_predict(predict: argparse.ArgumentParser) -> None:
    predict.epilog = (
        "Exit code: 0; 11 if some images could not be read, which stderr names; 10 if nothing could be done."
    )
    predict.add_argument("--model", type=Path, required=True, help="the folder model of a run's output")
    target = predict.add_mutually_exclusive_group()
    target.add_argument("--json", metavar="FILE", help="write JSON in place of a table; - for stdout")
    target.add_argument("--csv", metavar="FILE", help="write CSV in place of a table; - for stdout")
    predict.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE_OR_FOLDER", help="PNG or JPEG, or a folder with such below it"
    )


def _add_doctor(doctor: argparse.ArgumentParser) -> None:
    """Its options; those of the labels file are NIH's if nothing else is said."""
    doctor.add_argument("path", type=Path, help="folder with labels file and images, or a labels file alone")
    doctor.add_argument("--json", type=Path, help="file for the findings as JSON")
    doctor.add_argument("--picture", type=Path, help="file for the histogram of labels as SVG")
    doctor.add_argument("--seed", type=int, default=42, help="of the splits, as in dataset.split.seed")
    doctor.add_argument("--labels", default="Data_Entry_2017_v2020.csv", help="name of the folder's labels file")
    doctor.add_argument("--image-column", default="Image Index")
    doctor.add_argument("--patient-column", default="Patient ID")
    doctor.add_argument("--label-column", default="Finding Labels")
    doctor.add_argument("--separator", default=SEPARATOR, help="between the findings of a cell")
    doctor.add_argument("--layout", default="List", help="Columns: each finding has a column of its own")
    doctor.add_argument("--uncertain", default="Negative", help="Positive: -1 in such a column is taken for 1")
    doctor.add_argument("--patient-folder", help="folders that this and a number name are the patients")
    doctor.add_argument(
        "--findings", nargs="+", default=NIH_FINDINGS, metavar="FINDING", help="those of NIH if not given"
    )


def _finished_or_failed(options: argparse.Namespace, progress: Progress, stop: StopSignal) -> Dict[str, Any]:
    """The command's result, or the document that describes its failure."""
    try:
        return _run(options, progress, stop)
    except TrainerError as error:
        LOG.error("%s: %s", error.reason, error)
        return error_result(error, progress.state.checkpoint)
    # the last line of defence: a bug of ours or a library's still has to leave its message and a known exit code
    except Exception as error:
        # training sees no names; in preparation the text of an error may quote one
        LOG.error("%s", describe_unexpected(error, with_text=options.command == "train"))
        return error_result(error, progress.state.checkpoint)


def describe_unexpected(error: BaseException, with_text: bool) -> str:
    """Traceback of an error and of those that led to it; without their texts, types and places remain."""
    if with_text:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    before = error.__cause__ or error.__context__
    earlier = describe_unexpected(before, with_text) if before is not None else ""
    places = "".join(traceback.format_tb(error.__traceback__))
    return f"{earlier}Traceback (most recent call last):\n{places}{type(error).__name__}\n"


def _run(options: argparse.Namespace, progress: Progress, stop: StopSignal) -> Dict[str, Any]:
    """The command's result. Its module is imported only if it is needed: torch takes long, preparation has none."""
    if options.command in ORDERED:
        return _prepare_ordered(options, progress)
    run_file = read_run_file(options.run_file)
    if options.command == "train":
        _log_to_file(run_file.output_dir / "train.log")
    finished = find_finished(run_file, options.command)
    if finished is not None:
        return finished
    serve(progress, run_file.progress_port)
    if options.command == "prepare":
        return _prepare(run_file, options.model_commit, progress)
    from xray_trainer.train import train

    return train(run_file, progress, stop)


def _prepare(run_file: RunFile, model_commit: Optional[str], progress: Progress) -> Dict[str, Any]:
    from xray_trainer.prepare.model import prepare_model
    from xray_trainer.prepare.run import prepare

    model = prepare_model(run_file, progress, model_commit)  # first: it is soon known to be wrong
    return {**prepare(run_file, progress), **model}


def _prepare_ordered(options: argparse.Namespace, progress: Progress) -> Dict[str, Any]:
    if options.command == "prepare-model":
        from xray_trainer.prepare.model import prepare_model_order

        model_order = parse_model_order(options.order)
        serve(progress, model_order.progress_port)
        return prepare_model_order(model_order, progress)
    from xray_trainer.prepare.run import prepare_order

    order = parse_data_order(options.order)
    serve(progress, order.progress_port)
    return _with_result(prepare_order(order, secrets.token_hex(8), progress), os.environ.get(ORDERED_BY))


def _with_result(prepared: Dict[str, Any], ordered_by: Optional[str]) -> Dict[str, Any]:
    """With what `train` of the run that has ordered would answer again, if it is finished; its folder says whose answer that
    is, for what is prepared is for other runs too."""
    run_file = parse_run_file(json.loads(ordered_by)) if ordered_by else None
    finished = find_finished(run_file, "train") if run_file else None
    if run_file is None or finished is None:
        return prepared
    return {**finished, **prepared, "adopted": True, "output_folder": run_file.output_dir.name}


def _synthesize(options: argparse.Namespace) -> int:
    from xray_trainer.synthetic import synthesize

    begin = time.monotonic()
    synthesize(options.out, images=options.images, seed=options.seed, size=options.size, archives=options.archives)
    LOG.info("%d images written in %.1f s", options.images, time.monotonic() - begin)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from xray_trainer.doctor.command import doctor

    try:
        columns = parse_labels_file(
            file=options.labels,
            image_column=options.image_column,
            patient_column=options.patient_column,
            label_column=options.label_column,
            separator=options.separator,
            layout=options.layout,
            uncertain=options.uncertain,
            patient_folder=options.patient_folder,
        )
        return doctor(options.path, columns, options.findings, options.seed, options.json, options.picture)
    except TrainerError as error:
        LOG.error("%s: %s", error.reason, error)
        return error.exit_code
    except Exception as error:  # its text may quote a name, and Python would print it
        LOG.error("%s", describe_unexpected(error, with_text=False))
        return TrainerError.exit_code


def _predict(options: argparse.Namespace) -> int:
    from xray_trainer.predict.command import predict

    try:
        code = predict(options.model, options.images, options.json, options.csv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python's own last flush goes
        return TrainerError.exit_code
    except TrainerError as error:
        LOG.error("%s: %s", error.reason, error)
        return error.exit_code


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _log_to_file(path: Path) -> None:
    """Keep the log with the results too, below that of earlier attempts; without the folder, which `train` will complain
    of, it is left out."""
    if path.parent.is_dir():
        handler = logging.FileHandler(path, mode="a", encoding="utf-8")
        handler.setFormatter(_formatter())
        logging.getLogger().addHandler(handler)


def _formatter() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    return formatter


if __name__ == "__main__":
    sys.exit(main())
