"""Every name of poptorch and popart that optimum-graphcore takes for a Vision Transformer exists in the stand-in.

Its source is read, so that a name is found also where no test comes by.
"""

from __future__ import annotations

import ast
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, Iterator, List, Mapping, Tuple

import optimum.graphcore
import popart
import poptorch
import pytest
import torch

SOURCE = Path(optimum.graphcore.__file__).parent
ON_THE_PATH = (
    "__init__.py",
    "ipu_configuration.py",
    "modeling_utils.py",
    "models/vit/modeling_vit.py",
    "trainer.py",
    "trainer_utils.py",
    "training_args.py",
)
OF_OTHER_MODELS = {"poptorch.Attribute", "poptorch.serializedMatMul"}
"""In functions of modeling_utils.py that only models of text call."""
EXECUTOR = "PoplarExecutor"
EXECUTORS = ("self.training_model", "self.inference_model", "wrapped", EXECUTOR)
OPTIMIZERS = ("self.optimizer",)


def chains(file: str) -> Iterator[str]:
    """`a.b.c` for each such expression, as long as it gets; `a().b` is `a.b`, for what a call gives has names, too.

    What is imported from poptorch by its own name stands under its whole one, and the executor that a function is given
    under EXECUTOR.
    """
    tree = ast.parse((SOURCE / file).read_text())
    roots = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("poptorch", "popart"):
            roots.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    yield from roots.values()
    yield from _chains(tree, roots)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            given = [
                each.arg for each in node.args.args if each.annotation and _words(each.annotation)[-1:] == [EXECUTOR]
            ]
            taken = _chains(node, dict.fromkeys(given, EXECUTOR))
            yield from (chain for chain in taken if chain.startswith(f"{EXECUTOR}."))


def _chains(tree: ast.AST, roots: Mapping[str, str]) -> Iterator[str]:
    """Args: roots: what a name that a chain begins with stands for."""
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    inner = {id(_called(node.value)) for node in attributes}
    for words in (_words(node) for node in attributes if id(node) not in inner):
        if words:
            yield ".".join([roots.get(words[0], words[0]), *words[1:]])


def _words(node: ast.AST) -> List[str]:
    """Nothing, if the chain doesn't begin with a name."""
    node = _called(node)
    if isinstance(node, ast.Name):
        return [node.id]
    if not isinstance(node, ast.Attribute):
        return []
    words = _words(node.value)
    return [*words, node.attr] if words else []


def _called(node: ast.AST) -> ast.AST:
    return _called(node.func) if isinstance(node, ast.Call) else node


def under(*roots: str) -> List[Tuple[str, List[str]]]:
    """Each chain below one of these, with the words that follow it."""
    found = sorted({chain for file in ON_THE_PATH for chain in chains(file)})
    return [(c, c[len(r) + 1 :].split(".")) for c in found for r in roots if c.startswith(f"{r}.")]


def lacking(value: Any, words: List[str]) -> str:
    """The first of the words that isn't there; empty if all are. What a method gives back is taken to be its object."""
    for word in words:
        if not hasattr(value, word):
            return word
        found = getattr(value, word)
        value = value if isinstance(found, (FunctionType, MethodType)) and not isinstance(value, ModuleType) else found
    return ""


def _model() -> torch.nn.Module:
    return torch.nn.Linear(2, 2)


def test_the_names_are_found_in_the_source() -> None:
    found = {chain for chain, _ in under("poptorch", "popart")}
    assert len(found) > 25
    assert found >= {
        "poptorch.optim.AdamW",
        "poptorch.BeginBlock",
        "poptorch.DataLoaderMode",
        "poptorch.AutoStage.AutoIncrement",
        "popart.SubgraphCopyingStrategy.JustInTime",
        "poptorch.OutputMode.Final",
        "poptorch.TensorLocationSettings.useOnChipStorage.useReplicatedTensorSharding",
        *OF_OTHER_MODELS,
    }
    assert {chain for chain, _ in under("opts")} >= {"opts.Training.gradientAccumulation", "opts._popart.set"}
    assert {chain for chain, _ in under(*EXECUTORS)} >= {
        "self.training_model.detachFromDevice",
        "PoplarExecutor.compile",
    }


@pytest.mark.parametrize(("chain", "words"), under("poptorch", "popart"))
def test_a_name_of_poptorch_exists(chain: str, words: List[str]) -> None:
    missing = lacking(popart if chain.startswith("popart.") else poptorch, words)
    assert missing == (words[0] if chain in OF_OTHER_MODELS else "")


@pytest.mark.parametrize(("chain", "words"), under("opts"))
def test_an_option_exists(chain: str, words: List[str]) -> None:
    assert lacking(poptorch.Options(), words) == "", chain


@pytest.mark.parametrize(("chain", "words"), under(*EXECUTORS))
def test_what_is_called_on_a_model_exists(chain: str, words: List[str]) -> None:
    assert lacking(poptorch.trainingModel(_model()), words) == "", chain


@pytest.mark.parametrize(("chain", "words"), under(*OPTIMIZERS))
def test_what_is_called_on_an_optimizer_exists(chain: str, words: List[str]) -> None:
    assert lacking(poptorch.optim.AdamW(_model().parameters()), words) == "", chain


@pytest.mark.parametrize(
    "value", [poptorch, popart, poptorch.Options(), poptorch.optim, poptorch.trainingModel(_model())]
)
def test_a_name_that_nobody_takes_does_not_exist(value: Any) -> None:
    with pytest.raises(AttributeError):
        _ = value.identity_loss
