"""The pipeline that a command answers with, from the options that commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragweave.cli.console import quiet_libraries, spinner
from ragweave.errors import ConfigurationError
from ragweave.types import SearchSettings

if TYPE_CHECKING:
    from ragweave.pipeline.answer_pipeline import AnswerPipeline
    from ragweave.pipeline.chat_client import ChatClient


def load_pipeline(given: Mapping[str, Any]) -> AnswerPipeline:
    """Load the pipeline of a command.

    Args:
        given: The command's options by their names, ``context.params``.

    Raises:
        ConfigurationError: The options contradict each other.
    """
    with spinner(f"Loading the model '{given['generator_model'] or given['model']}'"):
        from ragweave.pipeline.endpoint_pipeline import load_pipeline as load

        quiet_libraries()
        return load(given["model"], **_arguments(given))


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    optional = ("fusion", "dense_weight", "candidates", "where")
    search = SearchSettings(given["retrieval"], **{name: given[name] for name in optional if name in given})
    same = ("formulation", "answer_style", "dtype", "device", "calibration", "passage_cache")
    return {
        "server": server_of(given),
        "knowledge_base": given["kb"],
        "search": search,
        "reranker": given["rerank"],
        "min_confidence": 0.0 if given["answer_anyway"] else given["min_confidence"],
        **{name: given[name] for name in same},
    }


def server_of(given: Mapping[str, Any]) -> ChatClient | None:
    """The server that ``--generator`` names, if any.

    Raises:
        ConfigurationError: The name of the model is missing, or an option is invalid.
    """
    from ragweave.pipeline.chat_client import ChatClient, read_key

    if given["generator"] is None:
        return None
    if given["generator_model"] is None:
        raise ConfigurationError("Name the model of --generator with --generator-model.")
    key_file = given["generator_key_file"]
    return ChatClient(
        given["generator"],
        given["generator_model"],
        api=given["generator_api"],
        key=None if key_file is None else read_key(Path(key_file)),
        timeout=given["generator_timeout"],
        max_requests=given["generator_requests"],
    )
