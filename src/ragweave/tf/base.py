"""What every TensorFlow RAG model shares: how it is loaded, put together and saved."""

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
from ragweave.modeling.arguments import take_prefixed
from ragweave.modeling.parts import Retriever
from ragweave.tf import weights
from ragweave.tf.backend import layers_of
from ragweave.tf.networks import build_generator, build_question_encoder

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


def takes_dictionary(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a model's ``call`` take its arguments as a dictionary too, as Keras' ``fit`` passes them."""

    @wraps(call)
    def taking(self: Any, input_ids: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(input_ids, Mapping):
            return call(self, *args, **input_ids, **kwargs)
        return call(self, input_ids, *args, **kwargs)

    return taking


class TFRagPreTrainedModel(keras.Model):
    """Base of the TensorFlow RAG models: configuration, loading and saving.

    Args:
        config: The configuration.
    """

    def __init__(self, config: RagConfig) -> None:
        # Scores of passages are given in float32, and stay so in mixed precision.
        super().__init__(autocast=False)
        self.config = config
        self.generation_config = GenerationConfig.from_model_config(config)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        config: RagConfig | None = None,
        retriever: Retriever | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Load a model that ragweave's or transformers' torch classes saved, or these.

        Args:
            pretrained_model_name_or_path: Folder or name on the hub.
            config: Configuration to use instead of the saved one.
            retriever: Retriever that the model calls.
            dtype: A dtype policy of Keras, such as "mixed_bfloat16"; the global one where left out.
            **kwargs: Options of the hub, such as ``revision``; fields of RagConfig to change.

        Returns:
            The model.

        Raises:
            ConfigurationError: Its networks are none that `ragweave.tf` has.
            ModelNotFoundError: There is no RAG model, or weights are missing.
        """
        name, hub = str(pretrained_model_name_or_path), _hub_options(kwargs)
        if config is None:
            config = _rag_config(name, {**hub, **kwargs})
        elif kwargs.keys() - hub.keys():
            raise ConfigurationError("Give either config or fields of it.")
        model_class: Any = cls
        model = model_class(config, retriever=retriever, dtype=dtype)
        model.generation_config = _generation_config(name, hub, model.generation_config)
        rag = model.rag
        with weights.open_checkpoint(name, **hub) as checkpoint:
            names = [own for own, _ in weights.named_variables(rag)]
            rename = weights.renaming(names, checkpoint, "rag")
            used: set[str] = set()
            for part in ("question_encoder", "generator"):
                network = getattr(rag, part)
                used |= weights.load(network, checkpoint, _within(part, rename), name)
            weights.report_unused(checkpoint, used, name)
        return model

    @classmethod
    def from_pretrained_question_encoder_generator(
        cls,
        question_encoder_pretrained_model_name_or_path: str | PathLike[str] | None = None,
        generator_pretrained_model_name_or_path: str | PathLike[str] | None = None,
        retriever: Retriever | None = None,
        *,
        dtype: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Put a RAG model together from two pretrained models.

        Args:
            question_encoder_pretrained_model_name_or_path: Name or folder of the question encoder.
            generator_pretrained_model_name_or_path: Name or folder of the generator.
            retriever: Retriever that the model calls.
            dtype: A dtype policy of Keras; the global one where left out.
            **kwargs: ``question_encoder_...`` and ``generator_...`` go, without that prefix, to the loading of the
                one or the other: ``config``, options of the hub, fields of its configuration
                (``question_encoder_model`` and ``generator_model`` are networks of `ragweave.tf` that are there
                already); ``config`` is a whole RagConfig; the rest are fields of RagConfig.

        Returns:
            The model.

        Raises:
            ConfigurationError: A part has neither a name nor a network, or is none that `ragweave.tf` has.
            ModelNotFoundError: A part cannot be found.
        """
        fields = RagConfig.__dataclass_fields__
        names = {
            "question_encoder": question_encoder_pretrained_model_name_or_path,
            "generator": generator_pretrained_model_name_or_path,
        }
        build = {"question_encoder": build_question_encoder, "generator": build_generator}
        parts = {}
        for part, name in names.items():
            own = take_prefixed(kwargs, f"{part}_", except_for=fields)
            parts[part] = own.pop("model", None)
            if parts[part] is None:
                parts[part] = _load_part(name, part, build[part], own, dtype)
        config = kwargs.pop("config", None)
        if config is None:
            config = RagConfig.from_question_encoder_generator_configs(
                parts["question_encoder"].config, parts["generator"].config, **kwargs
            )
        model_class: Any = cls
        model = model_class(config, retriever=retriever, **parts)
        ends = parts["generator"].generation_config.eos_token_id
        if config.eos_token_id is None and ends is not None:
            model.generation_config.eos_token_id = ends
        return model

    def save_pretrained(
        self, save_directory: str | PathLike[str], *, max_shard_size: int | str = "5GB"
    ) -> None:
        """Save the model to a folder that ragweave's and transformers' torch classes load, and these.

        Args:
            save_directory: Folder; made where it is missing.
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
        tensors = {name: ops.convert_to_numpy(own.value) for name, own in weights.named_variables(self)}
        weights.save(tensors, folder, max_shard_size=max_shard_size)


def _within(part: str, rename: weights.Rename) -> weights.Rename:
    return lambda name: rename(f"{part}.{name}")


def _hub_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: kwargs.pop(name) for name in HUB_OPTIONS if kwargs.get(name) is not None}


def _rag_config(name: str, kwargs: dict[str, Any]) -> RagConfig:
    try:
        found = RagConfig.get_config_dict(name, **kwargs)[0]
    except OSError as error:
        raise ModelNotFoundError(
            f"No model could be found under '{name}': give a folder or a name on the hub ({error})."
        ) from error
    if found.get("model_type") != RagConfig.model_type:
        raise ModelNotFoundError(
            f"'{name}' has model_type {found.get('model_type')!r}, which is no RAG model; put one together with "
            "from_pretrained_question_encoder_generator."
        )
    config, unknown = RagConfig.from_pretrained(name, return_unused_kwargs=True, **kwargs)
    unknown = {own: value for own, value in unknown.items() if own not in HUB_OPTIONS}
    if unknown:
        raise TypeError(f"from_pretrained() got unknown argument(s): {', '.join(unknown)}.")
    return config


def _generation_config(name: str, hub: dict[str, Any], otherwise: GenerationConfig) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(name, **hub)
    except OSError:  # not every folder has one
        return otherwise


def _load_part(
    name: str | PathLike[str] | None, part: str, build: Any, kwargs: dict[str, Any], dtype: Any
) -> Any:
    if name is None:
        raise ConfigurationError(f"Give {part}_pretrained_model_name_or_path, or a network as {part}_model.")
    name, hub, config = str(name), _hub_options(kwargs), kwargs.pop("config", None)
    if config is None:
        try:
            config = AutoConfig.from_pretrained(name, **hub, **kwargs)
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(f"No model could be found under '{name}' ({error}).") from error
    with layers_of(dtype):
        network = build(config)
    with weights.open_checkpoint(name, **hub) as checkpoint:
        names = [own for own, _ in weights.named_variables(network)]
        rename = weights.renaming(names, checkpoint, network.base_model_prefix)
        weights.report_unused(checkpoint, weights.load(network, checkpoint, rename, name), name)
    if part == "generator":
        network.generation_config = _generation_config(name, hub, network.generation_config)
    return network
