"""Asking a retriever from inside of a network: as it is, or as one operation of a graph.

A retriever works with numpy arrays. What it returns is the same for every retriever, so a graph can hold it.

Notation used for tensor shapes
    B questions, K passages per question, S context tokens, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from ragweave.errors import ConfigurationError
from ragweave.tf.backend import is_traced

Tensor = Any


class Found(NamedTuple):
    """What a retriever found, as `ragweave.RagRetriever.__call__` names it.

    Attributes:
        context_input_ids: (B*K, S).
        context_attention_mask: (B*K, S).
        vectors: (B, K, D).
        doc_ids: (B, K), below 0 for a passage that is not there.
        weights: (B, K), what the inner products count; 1 where the retriever does not say.
        offsets: (B, K), what is added to them; 0 where the retriever does not say.
    """

    context_input_ids: Tensor
    context_attention_mask: Tensor
    vectors: Tensor
    doc_ids: Tensor
    weights: Tensor
    offsets: Tensor


_TYPES = ("int32", "int32", "float32", "int32", "float32", "float32")


def ask(
    retriever: Callable[[], Any],
    input_ids: Tensor,
    vectors: Tensor,
    *,
    n_docs: int,
    prefix: str | None,
    question_strings: Sequence[str] | None = None,
) -> Found:
    """Retrieve K passages for each of B questions.

    Args:
        retriever: Gives the retriever: a graph asks it when it runs, and finds the one that is set then.
        input_ids: Question tokens, (B, S).
        vectors: Question vectors, (B, D); no gradient passes through here.
        n_docs: K.
        prefix: Text before every context.
        question_strings: The questions as the user wrote them; not inside of a graph.

    Returns:
        Tensors of the backend.

    Raises:
        ConfigurationError: A graph is being built on a backend, or with strings, that it cannot be done with.
    """

    def call(ids: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, ...]:
        # Not handed on where there are none: a retriever of another make need not know the argument.
        strings = {} if question_strings is None else {"question_strings": question_strings}
        # "tf" is no kind of tensors that transformers knows any more.
        found = retriever()(ids, hidden, prefix=prefix, n_docs=n_docs, return_tensors="np", **strings)
        doc_ids = np.asarray(found["doc_ids"])
        values = (
            found["context_input_ids"],
            found["context_attention_mask"],
            found["retrieved_doc_embeds"],
            doc_ids,
            found.get("doc_score_weights", np.ones(doc_ids.shape)),
            found.get("doc_score_offsets", np.zeros(doc_ids.shape)),
        )
        return tuple(np.asarray(value, dtype=kind) for value, kind in zip(values, _TYPES, strict=True))

    if not is_traced(vectors, input_ids):
        ids = np.asarray(ops.convert_to_numpy(input_ids))
        hidden = np.asarray(ops.convert_to_numpy(ops.stop_gradient(vectors)), dtype=np.float32)
        return Found(*(ops.convert_to_tensor(value) for value in call(ids, hidden)))
    if keras.config.backend() != "tensorflow" or question_strings is not None:
        raise ConfigurationError(
            "Inside of a graph the retriever can be asked on TensorFlow, and without question_strings: retrieve "
            "before, with model.rag.retrieve(...), and pass context_input_ids, context_attention_mask and doc_scores."
        )
    import tensorflow

    found = Found(
        *tensorflow.numpy_function(call, [input_ids, tensorflow.cast(vectors, "float32")], list(_TYPES))
    )
    size = vectors.shape[-1]
    for value, shape in zip(
        found,
        ((None, None), (None, None), (None, n_docs, size), *((None, n_docs),) * 3),
        strict=True,
    ):
        value.set_shape(shape)
    return found
