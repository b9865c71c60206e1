"""Every name of poptorch and popart that optimum-graphcore takes for a Vision Transformer exists in the stand-in.

Its source is read, so that a name is found also where no test comes by.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, Iterator, List, Tuple

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
EXECUTORS = ("self.training_model", "self.inference_model", "wrapped")
OPTIMIZERS = ("self.optimizer",)


def chains(file: str) -> Iterator[str]:
    """`a.b.c` for each such expression, as long as it gets."""
    tree = ast.parse((SOURCE / file).read_text())
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            words = _words(node)
            if words:
                yield ".".join(words)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("poptorch", "popart"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _words(node: ast.AST) -> List[str]:
    """Nothing, if the chain doesn't begin with a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if not isinstance(node, ast.Attribute):
        return []
    words = _words(node.value)
    return [*words, node.attr] if words else []


def under(*roots: str) -> List[Tuple[str, List[str]]]:
    """Each chain below one of these, with the words that follow it."""
    found = sorted({chain for file in ON_THE_PATH for chain in chains(file)})
    return [(c, c[len(r) + 1 :].split(".")) for c in found for r in roots if c.startswith(f"{r}.")]


def lacking(value: Any, words: List[str]) -> str:
    """The first of the words that isn't there; empty if all are."""
    for word in words:
        if not hasattr(value, word):
            return word
        value = getattr(value, word)
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
        *OF_OTHER_MODELS,
    }
    assert {chain for chain, _ in under("opts")} >= {"opts.Training.gradientAccumulation", "opts._popart.set"}
    assert {chain for chain, _ in under(*EXECUTORS)} >= {"self.training_model.detachFromDevice"}


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
