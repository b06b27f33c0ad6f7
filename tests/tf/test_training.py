"""Training with gradient tapes and Keras' fit, in graphs, with XLA and in mixed precision; work without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

import ragweave
import ragweave.tf
from ragweave.errors import ConfigurationError
from tests.tf.parity import FORMULATIONS, KINDS, OURS, TORCH, Case, gradients, numpy_of, pair, torch_model
from tests.tf.support import array, assert_close, trimmed

MODELS = pytest.mark.parametrize("kind", KINDS)
on_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="needs the TensorFlow backend"
)


def batch_of(case: Case) -> dict[str, Any]:
    """Arguments of `call`, contexts grouped by question, so that all have B rows."""
    inputs = numpy_of(case.arguments)
    questions = len(inputs["doc_scores"])
    for name in ("context_input_ids", "context_attention_mask"):
        inputs[name] = inputs[name].reshape(questions, -1, inputs[name].shape[-1])
    return {**inputs, "labels": case.labels.numpy()}


def without_dropout(model: Any) -> Any:
    """The model with dropout disabled, so that training is deterministic."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


@pytest.mark.parametrize("formulation", FORMULATIONS)
@MODELS
def test_fit_learns(formulation: str, kind: str, tmp_path: Path):
    _, ours = pair(formulation, kind, 0, tmp_path)
    batch = batch_of(Case(0))
    without_dropout(ours)
    start = float(array(ours(batch).loss).mean())
    ours.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = ours.fit(x=batch, batch_size=len(batch["labels"]), epochs=12, verbose=0).history["loss"]
    assert history[0] == pytest.approx(start, rel=1e-4)
    assert history[-1] < 0.5 * start
    assert ours.evaluate(x=batch, batch_size=len(batch["labels"]), verbose=0) == pytest.approx(
        float(array(ours(batch).loss).mean()), rel=1e-4
    )


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_training_steps_equal_those_of_torch(formulation: str, tmp_path: Path):
    theirs, ours = pair(formulation, "bart", 0, tmp_path / "before")
    case, rate = Case(0), 0.05
    optimizer = torch.optim.SGD(theirs.parameters(), lr=rate)
    for _ in range(3):
        optimizer.zero_grad()
        theirs(**case.arguments, labels=case.labels).loss.mean().backward()
        optimizer.step()
    without_dropout(ours).compile(optimizer=keras.optimizers.SGD(rate))
    batch = batch_of(case)
    ours.fit(x=batch, batch_size=len(batch["labels"]), epochs=3, verbose=0)
    ours.save_pretrained(tmp_path / "after")
    again = TORCH[formulation].from_pretrained(tmp_path / "after")
    expected = dict(theirs.named_parameters())
    for name, weight in again.named_parameters():
        assert_close(weight.detach(), expected[name].detach(), 1e-4)


def test_gradient_reaches_both_networks_through_a_retriever(tmp_path: Path):
    _, ours = pair("token", "bart", 0, tmp_path)
    batch = batch_of(Case(0))
    vectors = np.random.default_rng(0).normal(size=(*batch["doc_scores"].shape, 16)).astype(np.float32)

    def retriever(ids: Any, hidden: Any, **_: Any) -> dict[str, Any]:
        return {
            "context_input_ids": batch["context_input_ids"].reshape(-1, batch["context_input_ids"].shape[-1]),
            "context_attention_mask": batch["context_attention_mask"].reshape(
                -1, batch["context_attention_mask"].shape[-1]
            ),
            "retrieved_doc_embeds": vectors[..., : hidden.shape[-1]],
            "doc_ids": np.zeros(batch["doc_scores"].shape, dtype=np.int64),
        }

    ours.set_retriever(retriever)
    questions = np.arange(5, 5 + 4 * len(batch["labels"])).reshape(-1, 4)
    slopes = gradients(
        ours,
        lambda: keras.ops.sum(
            ours(questions, labels=batch["labels"], n_docs=batch["doc_scores"].shape[1], training=True).loss
        ),
    )
    for part in ("question_encoder", "generator"):
        assert any(np.abs(slope).max() > 1e-6 for name, slope in slopes.items() if part in name), part


@on_tensorflow
def test_graphs_return_the_same_loss(tmp_path: Path):
    import tensorflow

    _, ours = pair("sequence", "t5", 0, tmp_path)
    batch = batch_of(Case(0))
    expected = array(ours(batch).loss)
    for compile_ in (False, True):
        graph = tensorflow.function(lambda inputs: ours(inputs).loss, jit_compile=compile_)
        assert_close(graph({name: tensorflow.constant(value) for name, value in batch.items()}), expected)


@on_tensorflow
@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_fit_calls_a_retriever_in_its_graph(formulation: str, tmp_path: Path):
    _, ours = pair(formulation, "bart", 0, tmp_path)
    calls = []
    contexts = np.arange(4, 34).reshape(6, 5)

    def retriever(ids: Any, hidden: Any, *, n_docs: int, **_: Any) -> dict[str, Any]:
        calls.append(len(ids))
        return {
            "context_input_ids": contexts[: len(ids) * n_docs],
            "context_attention_mask": np.ones_like(contexts[: len(ids) * n_docs]),
            "retrieved_doc_embeds": np.ones((len(ids), n_docs, hidden.shape[-1]), np.float32),
            "doc_ids": np.zeros((len(ids), n_docs), dtype=np.int64),
        }

    ours.set_retriever(retriever)
    ours.compile(optimizer=keras.optimizers.Adam(1e-2))
    batch = {"input_ids": np.arange(5, 13).reshape(2, 4), "labels": np.array([[0, 8, 9, 2], [0, 7, 2, -100]])}
    history = ours.fit(x=batch, batch_size=2, epochs=10, verbose=0).history["loss"]
    assert len(calls) >= 10
    assert history[-1] < 0.7 * history[0]


@on_tensorflow
@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_mixed_precision_is_near_and_learns(formulation: str, tmp_path: Path):
    theirs = torch_model(formulation, "bart", 0)
    theirs.save_pretrained(tmp_path)
    ours = OURS[formulation].from_pretrained(tmp_path, dtype="mixed_bfloat16")
    case = Case(0)
    expected = theirs(**case.arguments, labels=case.labels).loss.detach()
    batch = batch_of(case)
    assert_close(ours(batch).loss, expected, 0.1 * float(expected.max()))
    assert {str(variable.dtype) for variable in ours.trainable_variables} == {"float32"}
    ours.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = ours.fit(x=batch, batch_size=len(batch["labels"]), epochs=10, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]


def test_sample_weights_count(tmp_path: Path):
    _, ours = pair("token", "bart", 0, tmp_path)
    batch = batch_of(Case(0))
    ours.compile(optimizer="sgd")
    weights = np.linspace(0.0, 1.0, len(batch["labels"])).astype("float32")
    expected = float((array(ours(batch).loss) * weights).mean())
    got = ours.compute_loss(batch, None, ours(batch), weights)
    assert float(array(got)) == pytest.approx(expected, rel=1e-5)


def test_fit_needs_labels_among_the_arguments(tmp_path: Path):
    _, ours = pair("token", "bart", 0, tmp_path)
    batch = batch_of(Case(0))
    with pytest.raises(ConfigurationError, match="labels"):
        ours.compute_loss(batch, batch["labels"], ours(batch))


def site_without_torch(folder: Path) -> Path:
    """A folder with all packages of this environment except torch."""
    folder.mkdir()
    for path in Path(keras.__file__).parents[1].iterdir():
        if not path.name.startswith("torch"):
            (folder / path.name).symlink_to(path)
    return folder


@on_tensorflow
def test_everything_works_without_torch(tmp_path: Path):
    theirs = torch_model("token", "bart", 0)
    theirs.save_pretrained(tmp_path / "model")
    case = Case(0)
    expected = theirs.generate(**case.arguments, num_beams=2, max_new_tokens=5)
    np.savez(tmp_path / "inputs.npz", **batch_of(case))
    code = """
import importlib.util, json, keras, numpy as np
assert importlib.util.find_spec("torch") is None
from ragweave.tf import TFRagSequenceForGeneration, TFRagTokenForGeneration
inputs = dict(np.load("inputs.npz"))
labels = inputs.pop("labels")
model = TFRagTokenForGeneration.from_pretrained("model")
answers = model.generate(**inputs, num_beams=2, max_new_tokens=5)
print(json.dumps(keras.ops.convert_to_numpy(answers).tolist()))
model.compile(optimizer="sgd")
model.fit(x={**inputs, "labels": labels}, verbose=0)
model.save_pretrained("trained")
TFRagSequenceForGeneration.from_pretrained("trained").generate(**inputs, max_new_tokens=3)
"""
    paths = [Path(ragweave.__file__).parents[1], site_without_torch(tmp_path / "site")]
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    ends, pad = theirs.rag.special_tokens.eos, theirs.rag.special_tokens.pad_or_eos
    rows = np.array(json.loads(result.stdout.splitlines()[-1]))
    assert trimmed(rows, ends, pad) == trimmed(expected, ends, pad)
    assert ragweave.RagTokenForGeneration.from_pretrained(tmp_path / "trained") is not None
