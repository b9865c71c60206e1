"""The stack of the e2e tests, with the image that trains."""

from collections.abc import Iterator

import pytest

from dev.demo.stack import Kube
from tests.chaos.settings import IMAGE
from tests.e2e.conftest import ipu_image_installed, kube, module_namespace, prepare_image, stack

__all__ = ["kube", "module_namespace", "prepare_image", "stack"]


@pytest.fixture(scope="session", autouse=True)
def trainer(stack: tuple[Kube, dict[str, str]]) -> Iterator[None]:
    if IMAGE == "ipu":
        with ipu_image_installed(*stack):
            yield
    else:
        yield
