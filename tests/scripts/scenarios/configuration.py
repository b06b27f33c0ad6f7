"""RagConfig made of two configurations, with overrides, saved and loaded."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import transformers as tf

from tests.scripts import material

FIELDS = (
    "n_docs",
    "title_sep",
    "doc_sep",
    "max_combined_length",
    "retrieval_vector_size",
    "retrieval_batch_size",
    "dataset",
    "dataset_split",
    "index_name",
    "index_path",
    "passages_path",
    "use_dummy_dataset",
    "label_smoothing",
    "reduce_loss",
    "do_marginalize",
    "do_deduplication",
    "exclude_bos_score",
    "output_retrieved",
    "use_cache",
    "is_encoder_decoder",
    "vocab_size",
    "prefix",
    "bos_token_id",
    "pad_token_id",
)


def fields(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in FIELDS}


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    question_encoder, generator = material.question_encoder_config(), material.generator_config()
    config = lib.RagConfig.from_question_encoder_generator_configs(
        question_encoder, generator, n_docs=4, title_sep=" | ", label_smoothing=0.1, **material.SPECIAL
    )
    config.save_pretrained(folder)
    changed = lib.RagConfig.from_pretrained(
        folder, n_docs=7, index_name="exact", use_dummy_dataset=True, dataset="wiki_dpr", prefix="ask: "
    )
    _, unused = lib.RagConfig.from_pretrained(folder, n_docs=2, colour="red", return_unused_kwargs=True)
    copied = copy.deepcopy(pickle.loads(pickle.dumps(config)))
    copied.update({"n_docs": 9, "reduce_loss": True})
    dictionary = config.to_dict()
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    retriever = lib.RagRetriever.from_pretrained(
        checkpoint, indexed_dataset=material.passages(), n_docs=2, title_sep=": "
    )
    model = lib.RagSequenceForGeneration.from_pretrained(checkpoint, n_docs=6, output_retrieved=True)
    return {
        "config": fields(config),
        "default": fields(
            lib.RagConfig(question_encoder=question_encoder.to_dict(), generator=generator.to_dict())
        ),
        "again": fields(lib.RagConfig.from_pretrained(folder)),
        "changed": fields(changed),
        "copied": fields(copied),
        "unused": unused,
        "parts": [config.question_encoder.model_type, config.generator.model_type, config.generator.d_model],
        "classes": [type(part).__name__ for part in (config.question_encoder, config.generator)],
        "dictionary": {name: dictionary[name] for name in ("model_type", *FIELDS)},
        "inner": [dictionary["generator"]["d_model"], dictionary["question_encoder"]["hidden_size"]],
        "json": all(f'"{name}"' in config.to_json_string() for name in ("generator", "question_encoder")),
        "equal": lib.RagConfig.from_dict(copy.deepcopy(dictionary)).to_dict() == dictionary,
        "is a configuration": isinstance(config, tf.PreTrainedConfig),
        "retriever": [retriever.n_docs, retriever.config.n_docs, retriever.config.title_sep],
        "model": [model.config.n_docs, model.config.output_retrieved, model.rag.config.n_docs],
    }
