"""Operations that Keras lacks: graphs, products with weights in torch's layout, dtype policies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

BACKEND = keras.config.backend()
if BACKEND == "tensorflow":
    import tensorflow
elif BACKEND == "jax":
    import jax

Tensor = Any
"""A tensor of Keras' backend; calls also take numpy arrays."""


def is_traced(*tensors: Tensor) -> bool:
    """Whether a graph is being built, in which tensors have no values yet; some of the tensors may be None."""
    if BACKEND == "tensorflow":
        return not tensorflow.executing_eagerly()
    return BACKEND == "jax" and any(isinstance(tensor, jax.core.Tracer) for tensor in tensors)


def multiply_transposed(states: Tensor, weight: Tensor) -> Tensor:
    """States times weights in torch's layout: (..., I) and (O, I) to (..., O), without a copy of the weights."""
    weight = ops.convert_to_tensor(weight, dtype=states.dtype)
    if BACKEND != "tensorflow":
        return ops.matmul(states, ops.transpose(weight))
    shape = ops.shape(states)
    flat = ops.reshape(states, (-1, shape[-1]))
    product = tensorflow.linalg.matmul(flat, weight, transpose_b=True)
    return ops.reshape(product, (*shape[:-1], weight.shape[0]))


def as_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors, and of nests of them, as a graph of TensorFlow; unchanged on other backends."""
    if BACKEND != "tensorflow":
        return function
    return tensorflow.function(function, autograph=False, reduce_retracing=True)


@contextmanager
def dtype_policy(policy: Any) -> Iterator[None]:
    """Create layers with a dtype policy of Keras; None stands for the global one."""
    previous = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)
