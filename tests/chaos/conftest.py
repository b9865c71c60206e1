"""The stack of the e2e tests."""

from tests.e2e.conftest import kube, module_namespace, prepare_image, stack

__all__ = ["kube", "module_namespace", "prepare_image", "stack"]
