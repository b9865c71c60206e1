"""A pod that reads a run's folder on its output claim, with the rights of the user who asks. Called by report and logs.

The operator has no part in it and needs no right for it. The pod mounts that one folder, read-only; whatever ends the
command, the pod is deleted, and should even that fail, it ends by itself and goes with the job.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from xray_cli.connection import Connection
from xray_cli.errors import CommandError, ServerError
from xray_cli.rights import Right, require
from xray_cli.transfer import BrokenStreamError, Chunks, command, incoming, save
from xray_operator.cluster import paths
from xray_operator.core.manifests import USER, shared_owner
from xray_operator.core.observed import may_hold
from xray_operator.core.plan import JobRef, Snapshot, read_snapshot
from xray_operator.errors import RecordError

Raw = dict[str, Any]

RIGHTS: Final = (
    Right("create", "pods"),
    Right("get", "pods"),
    Right("delete", "pods"),
    # over a websocket it is a GET, which newer servers take for a creation too
    Right("get", "pods/exec"),
    Right("create", "pods/exec"),
    Right("get", "persistentvolumeclaims"),
)
CONTAINER: Final = "reader"
FOLDER: Final = "/run-folder"
LIFE_SECONDS: Final = 3600
"""Then the kubelet ends the pod, should nobody have deleted it; a model of 10 GB takes minutes."""
START_SECONDS: Final = 180
"""A small image that the node usually has; a volume may have to be attached."""
SILENT_SECONDS: Final = 120
"""A stream that brings nothing for so long is broken."""
TRIES: Final = 3
BUFFER: Final = 1 << 18
STDOUT, STDERR, OUTCOME = 1, 2, 3
"""Channels of an exec (https://kubernetes.io/docs/reference/using-api/websockets/)."""
STUCK: Final = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
)


@dataclass(frozen=True)
class Place:
    """Where a run's files are, and what a pod needs to get there."""

    job: JobRef
    claim: str
    folder: str
    image: str
    record: Snapshot | None = None
    """What was fixed at the start: pull secrets and tolerations; None if the user may not read it."""
    node: str | None = None
    """The only one that can mount the claim now."""


def reader_pod(place: Place, name: str) -> Raw:
    """The pod, as Pod Security `restricted` wants it.

    It has the user of the pods that wrote the files, and no fsGroup: then the kubelet changes nothing on the volume.
    """
    record = place.record
    spec: Raw = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": LIFE_SECONDS,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(place)],
        # read-only as a whole as well: of a folder that isn't there, the kubelet would make one that root owns
        "volumes": [{"name": "output", "persistentVolumeClaim": {"claimName": place.claim, "readOnly": True}}],
        "tolerations": list(record.tolerations) if record else [],
        "imagePullSecrets": [{"name": secret} for secret in record.pod.image_pull_secrets] if record else [],
        "affinity": _on(place.node) if place.node else {},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": place.job.namespace,
            "labels": {"app.kubernetes.io/name": "xray-reader", "app.kubernetes.io/managed-by": "kubectl-xray"},
            "ownerReferences": [shared_owner(place.job)],
        },
        "spec": {key: value for key, value in spec.items() if value not in ([], {})},
    }


def node_of_claim(claim: Raw, pods: Sequence[Raw]) -> str | None:
    """The node that a claim is bound to by a pod that lives, where its access mode allows only one.

    Raises: CommandError if it allows only one pod, and that is there.
    """
    name, modes = claim["metadata"]["name"], set(claim["spec"].get("accessModes", ()))
    users = [pod for pod in pods if may_hold(pod) and pod["spec"].get("nodeName") and name in _claims(pod)]
    if not users or modes & {"ReadWriteMany", "ReadOnlyMany"}:
        return None
    if "ReadWriteOncePod" in modes:
        raise CommandError(
            f"claim {name} has access mode ReadWriteOncePod, and pod {users[0]['metadata']['name']} has it: no other "
            "can read it until that one has ended"
        )
    return str(users[0]["spec"]["nodeName"])


def find_place(connection: Connection, job: Raw, purpose: str) -> Place:
    """Where the files of the job's run are.

    Args:
        purpose: of the pod, in words: "reading the report takes a pod on claim x".
    Raises: CommandError that names the rights that the user lacks, or what else is against it.
    """
    metadata, run = job["metadata"], job["status"]["run"]
    require(connection, RIGHTS, purpose)
    namespace = metadata["namespace"]
    claim = connection.get(paths.item("PersistentVolumeClaim", namespace, run["claimName"]))
    return Place(
        job=JobRef(namespace, metadata["name"], metadata["uid"]),
        claim=run["claimName"],
        folder=run["folder"],
        image=run["prepareImage"],
        record=_record(connection, namespace, run["jobName"]),
        node=node_of_claim(claim, _if_allowed(connection, paths.collection("Pod", namespace)).get("items", [])),
    )


def fetch(connection: Connection, place: Place, wanted: Sequence[str], folder: Path) -> list[Path]:
    """Bring files of the run's folder into a folder here; each is whole, or is not there.

    Args:
        wanted: patterns, see transfer.command.
    """
    done: dict[str, Path] = {}
    with reading(connection, place) as pod:
        for _ in range(TRIES):
            try:
                for file in pod.files(wanted, list(done)):
                    done[str(file.path)] = save(file, folder)
                return list(done.values())
            except BrokenStreamError as error:
                broken = error
    raise CommandError(f"reading the run's folder broke off {TRIES} times: {broken}") from broken


class Reader:
    """A reader pod that runs."""

    def __init__(self, connection: Connection, namespace: str, name: str) -> None:
        self._connection, self._namespace, self._name = connection, namespace, name

    def files(self, wanted: Sequence[str], present: Sequence[str] = ()) -> Iterator[Any]:
        """The files that match (transfer.Incoming), one after the other."""
        errors = bytearray()
        chunks = Chunks(self._stdout(command(FOLDER, wanted, present), errors))
        yield from incoming(cast(BinaryIO, io.BufferedReader(chunks, BUFFER)))

    def _stdout(self, words: Sequence[str], errors: bytearray) -> Iterator[bytes]:
        """What a command in the pod writes. Raises: BrokenStreamError if it or the connection fails."""
        from websocket import ABNF, WebSocketException

        socket = self._execute(words)
        try:
            while True:
                code, frame = socket.recv_data_frame(True)
                if code == ABNF.OPCODE_CLOSE:
                    return
                channel, data = (frame.data[0], frame.data[1:]) if frame.data else (None, b"")
                if channel == STDOUT and code in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT):
                    yield data
                elif channel == STDERR:
                    errors += data
                elif channel == OUTCOME and json.loads(data).get("status") != "Success":
                    raise BrokenStreamError(_last_line(errors) or json.loads(data).get("message", "the command failed"))
        except (WebSocketException, OSError) as error:
            raise BrokenStreamError(str(error)) from error
        finally:
            socket.close(timeout=1)

    def _execute(self, words: Sequence[str]) -> Any:
        from kubernetes.client import ApiException, CoreV1Api
        from kubernetes.stream import stream

        api: Any = CoreV1Api(self._connection.api)
        try:
            opened = stream(
                api.connect_get_namespaced_pod_exec,
                self._name,
                self._namespace,
                container=CONTAINER,
                command=list(words),
                stdin=False,
                stdout=True,
                stderr=True,
                tty=False,
                binary=True,
                _preload_content=False,
            )
        except ApiException as error:
            raise BrokenStreamError(" ".join(str(error.reason).split())[:300]) from error
        # its own reading gathers all that has come before it gives any of it, in time that grows with the square
        opened.sock.settimeout(SILENT_SECONDS)
        return opened.sock


@contextlib.contextmanager
def reading(connection: Connection, place: Place) -> Iterator[Reader]:
    """A reader pod that runs, until the end of the block."""
    namespace = place.job.namespace
    name = f"xray-reader-{uuid.uuid4().hex[:10]}"
    path = paths.item("Pod", namespace, name)
    with _ended_by_signals():
        print(f"reading folder {place.folder} of claim {place.claim} through pod {name}", file=sys.stderr)
        try:
            connection.create(paths.collection("Pod", namespace), reader_pod(place, name))
            _wait_until_it_runs(connection, path, name)
            yield Reader(connection, namespace, name)
        finally:
            _remove(connection, path, namespace, name)


def _container(place: Place) -> Raw:
    container = {
        "name": CONTAINER,
        "image": place.image,
        "command": ["python3", "-c", f"import time; time.sleep({LIFE_SECONDS})"],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "output", "mountPath": FOLDER, "subPath": place.folder, "readOnly": True}],
    }
    return container | ({"imagePullPolicy": place.record.pull_policy} if place.record else {})


def _on(node: str) -> Raw:
    """By its name, which no label has to tell; the scheduler still looks whether there is room."""
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _claims(pod: Mapping[str, Any]) -> set[str]:
    volumes = pod["spec"].get("volumes", ())
    return {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}


def _record(connection: Connection, namespace: str, name: str) -> Snapshot | None:
    raw = _if_allowed(connection, paths.item("ConfigMap", namespace, name))
    with contextlib.suppress(RecordError):
        return read_snapshot(raw) if raw else None
    return None


def _if_allowed(connection: Connection, path: str) -> Raw:
    """What is there; nothing if it isn't, or is not for the user to see: then it goes without."""
    try:
        return connection.get(path)
    except ServerError as error:
        if error.status not in (403, 404):
            raise
        return {}


def _wait_until_it_runs(connection: Connection, path: str, name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    waits = ""
    while time.monotonic() < deadline:
        status = connection.get(path).get("status", {})
        if status.get("phase") == "Running":
            return
        reason, waits = _why_not(status)
        if reason in STUCK or status.get("phase") in ("Failed", "Succeeded"):
            break
        time.sleep(0.2)
    raise CommandError(f"pod {name}, which reads the claim, has not started: {waits or 'its node says nothing of it'}")


def _why_not(status: Raw) -> tuple[str, str]:
    """A word and a sentence on what a pod waits for."""
    for container in status.get("containerStatuses", ()):
        state = container.get("state", {})
        waiting = state.get("waiting") or state.get("terminated") or {}
        if waiting.get("reason"):
            return waiting["reason"], f"{waiting['reason']} {waiting.get('message', '')}".strip()
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return "Unschedulable", str(condition.get("message", ""))
    return "", str(status.get("message", ""))


def _remove(connection: Connection, path: str, namespace: str, name: str) -> None:
    """Whatever happens meanwhile: another Ctrl-C must not leave the pod behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        connection.delete(path, {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 1})
    except CommandError as error:
        if not (isinstance(error, ServerError) and error.status == 404):
            print(f"{error.line}\npod {name} is left: kubectl -n {namespace} delete pod {name}", file=sys.stderr)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that what it began is undone."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_line(text: bytearray) -> str:
    return text.decode(errors="replace").strip().splitlines()[-1] if text.strip() else ""
