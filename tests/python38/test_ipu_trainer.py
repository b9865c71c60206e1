"""The unmodified IPUTrainer of optimum-graphcore trains, evaluates, saves and resumes on the stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
import torch
from optimum.graphcore import IPUConfig, IPUTrainer, IPUTrainingArguments
from poptorch import _hardware
from tiny import FINDINGS, IMAGES, make_vit, open_parts, write_cache
from transformers import TrainerState, ViTForImageClassification, set_seed

from xray_trainer.dataset import Batch, XrayDataset
from xray_trainer.model import normalise

EPOCHS = 10
MICRO_BATCH, ACCUMULATION, REPLICAS = 2, 4, 2
IPUS_PER_REPLICA = 2
LEARNING_RATE = 2e-3
STEPS = EPOCHS * IMAGES["train"] // (MICRO_BATCH * ACCUMULATION * REPLICAS)
HALF = 2e-2
"""How far outputs of half precision may lie from those of the same weights in 32 bits."""


@pytest.fixture(autouse=True)
def four_ipus() -> None:
    """Nothing that failed before still holds them."""
    _hardware._held.clear()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, XrayDataset]:
    return open_parts(*write_cache(tmp_path_factory.mktemp("cache")))


def floats(batch: Batch) -> Batch:
    return {"pixel_values": normalise(batch["pixel_values"]), "labels": batch["labels"]}


def halves(batch: Batch) -> Batch:
    return {name: values.half() for name, values in floats(batch).items()}


def make_trainer(folder: Path, parts: Dict[str, XrayDataset], fp32: bool = False, **arguments: Any) -> IPUTrainer:
    set_seed(1)
    ipu_config = IPUConfig(
        ipus_per_replica=IPUS_PER_REPLICA,
        layers_per_ipu=[2, 2],
        gradient_accumulation_steps=ACCUMULATION,
        inference_device_iterations=2,
        recompute_checkpoint_every_layer=True,
        executable_cache_dir=str(folder / "executables"),
    )
    settings: Dict[str, Any] = {
        "num_train_epochs": EPOCHS,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_steps": 1,
    }
    return IPUTrainer(
        make_vit(),
        ipu_config,
        IPUTrainingArguments(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=MICRO_BATCH,
            per_device_eval_batch_size=MICRO_BATCH,
            n_ipu=IPUS_PER_REPLICA * REPLICAS,
            fp32=fp32,
            seed=1,
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["labels"],
            **{**settings, **arguments},
        ),
        data_collator=floats if fp32 else halves,
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
    )


def losses(state: TrainerState) -> List[float]:
    return [entry["loss"] for entry in state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, parts: Dict[str, XrayDataset]) -> Tuple[Path, IPUTrainer]:
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer(folder, parts)
    trainer.train()
    trainer.save_model(str(folder / "model"))
    return folder, trainer


def test_the_loss_falls(trained: Tuple[Path, IPUTrainer]) -> None:
    _, trainer = trained
    told = losses(trainer.state)
    assert trainer.state.global_step == len(told) == STEPS
    assert np.mean(told[-5:]) < 0.5 * np.mean(told[:5])


def test_what_was_learnt_holds_for_images_that_were_not_seen(
    trained: Tuple[Path, IPUTrainer], parts: Dict[str, XrayDataset]
) -> None:
    _, trainer = trained
    predicted = trainer.predict(parts["validation"])
    assert predicted.predictions.shape == (IMAGES["validation"], len(FINDINGS))
    right = (predicted.predictions > 0) == (parts["validation"].labels == 1)
    assert right.mean() > 0.9
    assert predicted.metrics["test_loss"] < 0.4


def test_the_saved_model_loads_and_computes_the_same(
    trained: Tuple[Path, IPUTrainer], parts: Dict[str, XrayDataset]
) -> None:
    folder, trainer = trained
    predicted = trainer.predict(parts["validation"]).predictions
    model = ViTForImageClassification.from_pretrained(str(folder / "model"), torch_dtype=torch.float32).eval()
    pixels = normalise(parts["validation"].__getitems__(list(range(IMAGES["validation"])))["pixel_values"])
    with torch.no_grad():
        logits = model(pixel_values=pixels).logits.numpy()
    np.testing.assert_allclose(predicted, logits, atol=HALF, rtol=HALF)


def test_executables_of_training_and_evaluation_lie_in_the_runs_own_folder(trained: Tuple[Path, IPUTrainer]) -> None:
    folder, trainer = trained
    assert len(list((folder / "executables").glob("*.popef"))) == 2
    assert _hardware._held == {}, trainer


def test_four_steps_equal_a_loop_by_hand(tmp_path: Path, parts: Dict[str, XrayDataset]) -> None:
    trainer = make_trainer(tmp_path, parts, fp32=True, max_steps=4, weight_decay=0.1)
    expected = make_vit()
    expected.load_state_dict(trainer.model.state_dict())
    batches: List[Batch] = []
    step = trainer.training_step
    trainer.training_step = lambda model, inputs: (batches.append(inputs), step(model, inputs))[1]
    trainer.train()
    decayed = [weight for name, weight in expected.named_parameters() if weight.ndim > 1]
    averages = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in expected.named_parameters()}
    for batch in batches:
        expected.zero_grad()
        expected(**batch).loss.backward()
        with torch.no_grad():
            for name, weight in expected.named_parameters():
                first, second = averages[name]
                first.mul_(0.9).add_(weight.grad, alpha=0.1)
                second.mul_(0.999).add_(weight.grad**2, alpha=0.001)
                decay = 0.1 if any(weight is each for each in decayed) else 0.0
                weight -= LEARNING_RATE * (first / (second.sqrt() + 1e-8) + decay * weight)
    got = trainer.model.state_dict()
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(got[name], weight, atol=2e-5, rtol=2e-5)


def test_training_that_goes_on_from_an_epochs_end_ends_with_the_same_weights(
    tmp_path: Path, parts: Dict[str, XrayDataset]
) -> None:
    per_epoch = STEPS // EPOCHS
    arguments = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": per_epoch}
    whole = make_trainer(tmp_path / "whole", parts, **arguments)
    whole.train()
    saved = tmp_path / "whole" / "out" / f"checkpoint-{2 * per_epoch}"
    resumed = make_trainer(tmp_path / "resumed", parts, **arguments)
    resumed.train(resume_from_checkpoint=str(saved))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_evaluation_between_epochs_leaves_the_weights_of_training_alone(
    tmp_path: Path, parts: Dict[str, XrayDataset]
) -> None:
    with_it = make_trainer(tmp_path / "with", parts, num_train_epochs=2, evaluation_strategy="epoch")
    evaluate = with_it.evaluate

    def evaluate_apart(*args: Any, **kwargs: Any) -> Dict[str, float]:
        with torch.random.fork_rng():  # upstream's loader draws from the numbers that training shuffles by
            return evaluate(*args, **kwargs)

    with_it.evaluate = evaluate_apart
    with_it.train()
    without = make_trainer(tmp_path / "without", parts, num_train_epochs=2)
    without.train()
    assert [entry["epoch"] for entry in with_it.state.log_history if "eval_loss" in entry] == [1, 2]
    for name, weight in without.model.state_dict().items():
        assert torch.equal(with_it.model.state_dict()[name], weight), name
