"""Loading, assembling and saving of the TensorFlow RAG models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any, Self

import keras
from keras import ops
from transformers import AutoConfig, GenerationConfig

from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError, ModelNotFoundError
from ragweave.model_files import check_config
from ragweave.modeling.parts import RetrieverProtocol, load_parts
from ragweave.tf import checkpoints
from ragweave.tf.bart import BartForConditionalGeneration
from ragweave.tf.bert import BertModel, DprQuestionEncoder
from ragweave.tf.keras_backend import dtype_policy
from ragweave.tf.layers import Embedding, Linear
from ragweave.tf.t5 import T5ForConditionalGeneration

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
NETWORKS: dict[str, dict[str, Any]] = {
    "question_encoder": {"bert": BertModel, "dpr": DprQuestionEncoder},
    "generator": {"bart": BartForConditionalGeneration, "t5": T5ForConditionalGeneration},
}


def build_network(part: str, config: Any) -> Any:
    """A "question_encoder" or "generator" with fresh weights; `ConfigurationError` if its type is not supported."""
    networks = NETWORKS[part]
    if config.model_type not in networks:
        raise ConfigurationError(
            f"ragweave.tf has no {part} of type '{config.model_type}'; it has {' and '.join(sorted(networks))}. "
            "The torch classes of ragweave support any type."
        )
    return networks[config.model_type](config)


def takes_dictionary(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a model's ``call`` also take its arguments as a dictionary, as Keras' ``fit`` passes them."""

    @wraps(call)
    def wrapper(self: Any, input_ids: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(input_ids, Mapping):
            return call(self, *args, **input_ids, **kwargs)
        return call(self, input_ids, *args, **kwargs)

    return wrapper


class TFRagPreTrainedModel(keras.Model):
    """Base of the TensorFlow RAG models: configuration, loading and saving."""

    rag: Any

    def __init__(self, config: RagConfig) -> None:
        # Passage scores are float32 and stay so in mixed precision.
        super().__init__(autocast=False)
        self.config = config
        self.generation_config = GenerationConfig.from_model_config(config)
        self.built = True  # constructors create all weights

    def get_input_embeddings(self) -> Embedding:
        """The generator's word embeddings."""
        return self.rag.generator.shared

    def get_output_embeddings(self) -> Embedding | Linear:
        """The generator's head, whose ``weight`` is (V, H)."""
        return self.rag.generator.get_output_embeddings()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        config: RagConfig | None = None,
        retriever: RetrieverProtocol | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Load a model saved by these classes, or by the torch classes of ragweave or transformers.

        Args:
            pretrained_model_name_or_path: Folder or name on the hub.
            config: Configuration to use instead of the saved one.
            retriever: Retriever that the model calls.
            dtype: A dtype policy of Keras, such as "mixed_bfloat16"; the global one by default.
            **kwargs: Options of the hub, such as ``revision``; fields of RagConfig to change. ``from_pt`` has no
                effect, since weights of torch are always read.

        Raises:
            ConfigurationError: `ragweave.tf` lacks one of its networks.
            ModelNotFoundError: There is no RAG model, or weights are missing.
        """
        name, hub = str(pretrained_model_name_or_path), _hub_options(kwargs)
        if config is None:
            config = _rag_config(name, {**hub, **kwargs})
        elif kwargs:
            raise ConfigurationError("Give either config or fields of it.")
        model_class: Any = cls
        model = model_class(config, retriever=retriever, dtype=dtype)
        model.generation_config = _generation_config(name, hub, model.generation_config)
        with checkpoints.open_checkpoint(name, **hub) as checkpoint:
            rename = checkpoints.renaming(model.rag, checkpoint, "rag")
            used: set[str] = set()
            for part in NETWORKS:
                used |= checkpoints.load(
                    getattr(model.rag, part), checkpoint, _rename_part(part, rename), name
                )
            checkpoints.report_unused(checkpoint, used, name)
        return model

    @classmethod
    def from_pretrained_question_encoder_generator(
        cls,
        question_encoder_pretrained_model_name_or_path: str | PathLike[str] | None = None,
        generator_pretrained_model_name_or_path: str | PathLike[str] | None = None,
        retriever: RetrieverProtocol | None = None,
        *,
        dtype: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Combine two pretrained models into a RAG model.

        Arguments as for `RagModel.from_pretrained_question_encoder_generator`, where ``question_encoder_model`` and
        ``generator_model`` are networks of `ragweave.tf`, and ``dtype``, a dtype policy of Keras.

        Raises:
            ConfigurationError: A part has neither a name nor a network, or `ragweave.tf` has no such network.
            ModelNotFoundError: A part cannot be found.
        """
        names = {
            "question_encoder": question_encoder_pretrained_model_name_or_path,
            "generator": generator_pretrained_model_name_or_path,
        }
        kwargs.pop("from_pt", None)
        with dtype_policy(dtype):
            parts = load_parts(names, kwargs, _load_network)
        model_class: Any = cls
        model = model_class(**parts, retriever=retriever)
        ends = parts["generator"].generation_config.eos_token_id
        if model.config.eos_token_id is None and ends is not None:
            model.generation_config.eos_token_id = ends
        return model

    def save_pretrained(
        self, save_directory: str | PathLike[str], *, max_shard_size: int | str = "5GB"
    ) -> None:
        """Save the model to a folder that these classes and the torch classes of ragweave and transformers load.

        Args:
            save_directory: Folder; created if it is missing.
            max_shard_size: Largest file of weights, in bytes or as a text such as "5GB".

        Raises:
            ConfigurationError: The path is a file.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise ConfigurationError(f"{folder} is a file; give a folder to save the model in.")
        folder.mkdir(parents=True, exist_ok=True)
        config = copy.deepcopy(self.config)
        config.architectures = [type(self).__name__.removeprefix("TF")]
        config.save_pretrained(folder)
        self.generation_config.save_pretrained(folder)
        variables = checkpoints.named_variables(self)
        tensors = {name: ops.convert_to_numpy(variable.value) for name, variable in variables}
        checkpoints.save(tensors, folder, max_shard_size=max_shard_size)


def _rename_part(part: str, rename: checkpoints.Rename) -> checkpoints.Rename:
    return lambda name: rename(f"{part}.{name}")


def _hub_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the options of the hub, and ``from_pt``, out of ``kwargs``."""
    kwargs.pop("from_pt", None)
    options = {name: kwargs.pop(name, None) for name in HUB_OPTIONS}
    return {name: value for name, value in options.items() if value is not None}


def _rag_config(name: str, kwargs: dict[str, Any]) -> RagConfig:
    try:
        model_type = RagConfig.get_config_dict(name, **kwargs)[0].get("model_type")
    except OSError as error:
        raise ModelNotFoundError(
            f"No model could be found under '{name}': give a folder or a name on the hub ({error})."
        ) from error
    if model_type != RagConfig.model_type:
        raise ModelNotFoundError(
            f"'{name}' has model_type {model_type!r}, which is not a RAG model; put one together with "
            "from_pretrained_question_encoder_generator."
        )
    config, unknown = RagConfig.from_pretrained(name, return_unused_kwargs=True, **kwargs)
    unknown = [argument for argument in unknown if argument not in HUB_OPTIONS]
    if unknown:
        raise TypeError(f"from_pretrained() got unknown argument(s): {', '.join(unknown)}.")
    return config


def _generation_config(name: str, hub: dict[str, Any], default: GenerationConfig) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(name, **hub)
    except OSError:  # not every folder has one
        return default


def _load_network(part: str, name: str | PathLike[str], kwargs: dict[str, Any]) -> Any:
    name, hub, config = str(name), _hub_options(kwargs), kwargs.pop("config", None)
    if config is None:
        try:
            config = AutoConfig.from_pretrained(name, **hub, **{**kwargs, "trust_remote_code": False})
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(f"No model could be found under '{name}' ({error}).") from error
    check_config(config)
    network = build_network(part, config)
    with checkpoints.open_checkpoint(name, **hub) as checkpoint:
        rename = checkpoints.renaming(network, checkpoint, network.base_model_prefix)
        checkpoints.report_unused(checkpoint, checkpoints.load(network, checkpoint, rename, name), name)
    if part == "generator":
        network.generation_config = _generation_config(name, hub, network.generation_config)
    return network
