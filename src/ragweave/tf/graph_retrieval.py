"""Calls of a retriever by a network: directly, or as one operation of a TensorFlow graph.

Notation used for tensor shapes: B questions, K passages per question, S context tokens, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from ragweave.errors import ConfigurationError
from ragweave.tf.keras_backend import BACKEND, Tensor, is_traced

if BACKEND == "tensorflow":
    import tensorflow


class RetrieverOutput(NamedTuple):
    """The output of a retriever, with the names of `ragweave.RagRetriever.__call__`."""

    context_input_ids: Tensor  # (B*K, S)
    context_attention_mask: Tensor  # (B*K, S)
    retrieved_doc_embeds: Tensor  # (B, K, D)
    doc_ids: Tensor  # (B, K), below 0 where there is no passage
    doc_score_weights: Tensor  # (B, K), factors of the inner products; 1 where the retriever returns none
    doc_score_offsets: Tensor  # (B, K), added to them; 0 where the retriever returns none


_TYPES = RetrieverOutput("int32", "int32", "float32", "int32", "float32", "float32")


def call_retriever(
    retriever: Callable[[], Any],
    input_ids: Tensor,
    vectors: Tensor,
    *,
    n_docs: int,
    prefix: str | None,
    question_strings: Sequence[str] | None = None,
) -> RetrieverOutput:
    """Retrieve K passages for each of B questions, whose tokens are (B, S) and whose vectors are (B, D).

    ``retriever`` returns the retriever: a graph calls it when it runs, so that it uses the current one. No gradient
    passes through the vectors. ``question_strings`` are the questions as the user wrote them; graphs take none.
    Raises `ConfigurationError` if a graph is being built that cannot call a retriever.
    """

    def retrieve(ids: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, ...]:
        # Passed only if there are any: other retrievers may not have the argument.
        strings = {} if question_strings is None else {"question_strings": question_strings}
        # "np", since transformers 5 has no "tf".
        output = retriever()(ids, hidden, prefix=prefix, n_docs=n_docs, return_tensors="np", **strings)
        shape = np.shape(output["doc_ids"])
        defaults = {"doc_score_weights": np.ones(shape), "doc_score_offsets": np.zeros(shape)}
        return tuple(
            np.asarray(output[name] if name in output else defaults[name], dtype=dtype)
            for name, dtype in _TYPES._asdict().items()
        )

    if not is_traced(vectors, input_ids):
        ids = np.asarray(ops.convert_to_numpy(input_ids))
        hidden = np.asarray(ops.convert_to_numpy(ops.stop_gradient(vectors)), dtype=np.float32)
        return RetrieverOutput(*map(ops.convert_to_tensor, retrieve(ids, hidden)))
    if BACKEND != "tensorflow" or question_strings is not None:
        raise ConfigurationError(
            "A graph can call a retriever only in TensorFlow and without question_strings: retrieve first, with "
            "model.rag.retrieve(...), and pass context_input_ids, context_attention_mask and doc_scores."
        )
    shapes = ((None, None), (None, None), (None, n_docs, vectors.shape[-1]), *((None, n_docs),) * 3)
    inputs = [input_ids, ops.cast(vectors, "float32")]
    outputs = tensorflow.numpy_function(retrieve, inputs, _TYPES)
    for output, shape in zip(outputs, shapes, strict=True):
        output.set_shape(shape)  # which TensorFlow cannot infer
    return RetrieverOutput(*outputs)
