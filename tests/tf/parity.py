"""Pairs of equal models, torch's and ours, their inputs and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import keras
import numpy as np
import torch

import ragweave
import ragweave.tf
from tests.support.models import VectorRetriever, contexts
from tests.tf.support import GENERATOR_CONFIGS, array, encoder_config, randomise_all, tokens

TORCH = {"token": ragweave.RagTokenForGeneration, "sequence": ragweave.RagSequenceForGeneration}
OURS = {"token": ragweave.tf.TFRagTokenForGeneration, "sequence": ragweave.tf.TFRagSequenceForGeneration}
FORMULATIONS = tuple(TORCH)
KINDS = tuple(GENERATOR_CONFIGS)


def rag_config(kind: str, seed: int, encoder: str = "dpr", **fields: Any) -> ragweave.RagConfig:
    networks = (encoder_config(seed, encoder), GENERATOR_CONFIGS[kind](seed))
    return ragweave.RagConfig.from_question_encoder_generator_configs(*networks, n_docs=3, **fields)


def torch_model(formulation: str, kind: str, seed: int, encoder: str = "dpr", **fields: Any) -> Any:
    model = TORCH[formulation](rag_config(kind, seed, encoder, **fields)).eval()
    model.set_attn_implementation("eager")  # that can show attentions
    randomise_all(model, seed)
    return model


def pair(formulation: str, kind: str, seed: int, folder: Path, **fields: Any) -> tuple[Any, Any]:
    """Torch's model and ours, which has read it from a folder."""
    theirs = torch_model(formulation, kind, seed, **fields)
    theirs.save_pretrained(folder)
    return theirs, OURS[formulation].from_pretrained(folder)


def numpy_of(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments as numpy arrays."""
    return {
        name: value.detach().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in given.items()
    }


@dataclass
class Case:
    """Random sizes, contexts, scores, labels and label smoothing."""

    seed: int
    arguments: dict[str, torch.Tensor] = field(init=False)
    labels: torch.Tensor = field(init=False)
    smoothing: float = field(init=False)

    def __post_init__(self) -> None:
        draw = Random(self.seed)  # noqa: S311
        questions, passages = draw.randint(1, 3), draw.randint(1, 4)
        self.arguments = contexts(questions, passages, draw.randint(3, 10), seed=self.seed)
        if passages > 1 and draw.random() < 0.5:
            self.arguments["doc_scores"][0, -1] = float("-inf")
        self.labels = tokens(questions, draw.randint(2, 6), seed=self.seed)
        for row in self.labels:
            row[draw.randint(2, len(row)) :] = draw.choice((-100, 1))
        self.smoothing = draw.choice((0.0, 0.1))


def torch_gradients(model: Any, loss: torch.Tensor) -> dict[str, np.ndarray]:
    """The gradient of a loss by every weight; 0 where there is none."""
    model.zero_grad()
    loss.backward()
    return {
        name: np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in model.named_parameters()
    }


def gradients(model: Any, loss_of: Callable[[], Any]) -> dict[str, np.ndarray]:
    """The same of ours, on whatever backend."""
    from ragweave.tf.checkpoints import named_variables

    named = {name: own for name, own in named_variables(model) if own.trainable}
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow

        with tensorflow.GradientTape() as tape:
            loss = loss_of()
        found = tape.gradient(loss, [own.value for own in named.values()], unconnected_gradients="zero")
        return {
            name: array(tensorflow.convert_to_tensor(own)) for name, own in zip(named, found, strict=True)
        }
    if backend == "torch":
        for own in named.values():
            own.value.grad = None
        loss_of().backward()
        return {
            name: np.zeros(own.shape, np.float32) if own.value.grad is None else own.value.grad.numpy()
            for name, own in named.items()
        }
    import jax

    def stateless(values: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(named.values(), values, strict=True))):
            return loss_of()

    found = jax.grad(stateless)([own.value for own in named.values()])
    return {name: np.asarray(own) for name, own in zip(named, found, strict=True)}


class NumpyRetriever:
    """The tests' retriever over random vectors, asked for numpy arrays as ours ask."""

    def __init__(self, **fields: Any) -> None:
        self.of_torch = VectorRetriever(**fields)
        self.asked: list[dict[str, Any]] = []
        self.extra: dict[str, np.ndarray] = {}

    def __call__(
        self,
        question_input_ids: Any,
        question_hidden_states: Any,
        prefix: str | None = None,
        n_docs: int | None = None,
        return_tensors: str | None = None,
        **others: Any,
    ) -> dict[str, Any]:
        self.asked.append({"prefix": prefix, "return_tensors": return_tensors, **others})
        found = self.of_torch(
            torch.tensor(np.asarray(question_input_ids)), question_hidden_states, prefix, n_docs
        )
        if return_tensors == "pt":
            return {**found, **{name: torch.tensor(own) for name, own in self.extra.items()}}
        return {**numpy_of(found), **self.extra}
