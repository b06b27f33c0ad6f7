"""Keras with the right backend: checked before anything of Keras is imported.

Keras chooses its backend once, when it is imported, from the environment variable ``KERAS_BACKEND``. The classes of
`ragweave.tf` are for TensorFlow, so that is what they ask for; a caller who has set the variable to another backend
of Keras gets that one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ragweave.errors import ConfigurationError, require_extra

VARIABLE = "KERAS_BACKEND"
DEFAULT = "tensorflow"
BACKENDS = ("tensorflow", "jax", "torch")


def require_keras() -> None:
    """Make sure that Keras runs, or will run once imported, on the backend that is asked for.

    Raises:
        ConfigurationError: It runs on another one already, or the one asked for is none of `BACKENDS`.
        MissingExtraError: Keras or TensorFlow is not installed.
    """
    wanted = os.environ.get(VARIABLE, DEFAULT)
    if wanted not in BACKENDS:
        raise ConfigurationError(f"{VARIABLE} is {wanted!r}; choose one of {', '.join(BACKENDS)}.")
    loaded = sys.modules.get("keras")
    if loaded is None:
        require_extra("keras", "tf")
        if wanted == DEFAULT:
            require_extra("tensorflow", "tf")
        os.environ[VARIABLE] = wanted
        return
    running = loaded.config.backend()
    if running != wanted:
        raise ConfigurationError(
            f"Keras was imported with the backend '{running}', but these classes need '{wanted}': set "
            f"{VARIABLE}={wanted} before anything imports Keras."
        )


def is_traced(*tensors: Any) -> bool:
    """Whether a graph is being built, so that values cannot be looked at; tensors may be None."""
    import keras

    if keras.config.backend() == "tensorflow":
        import tensorflow

        return not tensorflow.executing_eagerly()
    if keras.config.backend() == "jax":
        import jax

        return any(isinstance(tensor, jax.core.Tracer) for tensor in tensors)
    return False


def multiply_transposed(states: Any, weight: Any) -> Any:
    """States times weights in torch's layout: (..., I) and (O, I) to (..., O), without a copy of the weights."""
    import keras
    from keras import ops

    weight = ops.convert_to_tensor(weight, dtype=states.dtype)
    if keras.config.backend() != "tensorflow":
        return ops.matmul(states, ops.transpose(weight))
    import tensorflow

    shape = ops.shape(states)
    flat = ops.reshape(states, (-1, shape[-1]))
    product = tensorflow.linalg.matmul(flat, weight, transpose_b=True)
    return ops.reshape(product, (*shape[:-1], weight.shape[0]))


def compiled(function: Callable[..., Any], *, jit_compile: bool = False) -> Callable[..., Any]:
    """A function as a graph of TensorFlow; on other backends the function as it is.

    Args:
        function: Takes and returns tensors and nests of them.
        jit_compile: Compile it with XLA, for every shape anew.
    """
    import keras

    if keras.config.backend() != "tensorflow":
        return function
    import tensorflow

    return tensorflow.function(
        function, autograph=False, jit_compile=jit_compile or None, reduce_retracing=not jit_compile
    )


@contextmanager
def layers_of(dtype: Any) -> Iterator[None]:
    """Give all layers that are made meanwhile, in this thread, a dtype policy of Keras; None changes nothing."""
    import keras

    if dtype is None:
        yield
        return
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
