"""Pairs of equal models of torch and Keras, with their inputs and gradients."""

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
from ragweave.tf.checkpoints import named_variables
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
    model.set_attn_implementation("eager")  # which can return attentions
    randomise_all(model, seed)
    return model


def pair(formulation: str, kind: str, seed: int, folder: Path, **fields: Any) -> tuple[Any, Any]:
    """A torch model, and ours loaded from its folder."""
    theirs = torch_model(formulation, kind, seed, **fields)
    theirs.save_pretrained(folder)
    return theirs, OURS[formulation].from_pretrained(folder)


def numpy_of(inputs: dict[str, Any]) -> dict[str, Any]:
    """Arguments with numpy arrays in place of torch tensors."""
    return {
        name: value.detach().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
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
    """The gradient of a loss with respect to every weight; zeros if there is none."""
    model.zero_grad()
    loss.backward()
    return {
        name: np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in model.named_parameters()
    }


def gradients(model: Any, loss_of: Callable[[], Any]) -> dict[str, np.ndarray]:
    """The same for our model, on any backend."""
    named = {name: variable for name, variable in named_variables(model) if variable.trainable}
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow

        with tensorflow.GradientTape() as tape:
            loss = loss_of()
        values = [variable.value for variable in named.values()]
        slopes = tape.gradient(loss, values, unconnected_gradients="zero")
        return {
            name: array(tensorflow.convert_to_tensor(slope))
            for name, slope in zip(named, slopes, strict=True)
        }
    if backend == "torch":
        for variable in named.values():
            variable.value.grad = None
        loss_of().backward()
        slopes = {name: variable.value.grad for name, variable in named.items()}
        return {
            name: np.zeros(named[name].shape, np.float32) if slope is None else slope.numpy()
            for name, slope in slopes.items()
        }
    import jax

    def stateless(values: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(named.values(), values, strict=True))):
            return loss_of()

    slopes = jax.grad(stateless)([variable.value for variable in named.values()])
    return {name: np.asarray(slope) for name, slope in zip(named, slopes, strict=True)}


class NumpyRetriever:
    """The tests' retriever over random vectors, which returns numpy arrays; records its calls."""

    def __init__(self, **fields: Any) -> None:
        self.torch_retriever = VectorRetriever(**fields)
        self.calls: list[dict[str, Any]] = []
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
        self.calls.append({"prefix": prefix, "return_tensors": return_tensors, **others})
        output = self.torch_retriever(
            torch.tensor(np.asarray(question_input_ids)), question_hidden_states, prefix, n_docs
        )
        if return_tensors == "pt":
            return {**output, **{name: torch.tensor(value) for name, value in self.extra.items()}}
        return {**numpy_of(output), **self.extra}
