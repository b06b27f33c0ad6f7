"""A checkpoint made of a question encoder and a generator, saved with its retriever and loaded again.

Scripts that consolidate checkpoints do this. Some save the model first, others the tokenizer or the retriever.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import transformers as tf

from tests.scripts import material
from tests.support import models, retrieval

FIELDS = (
    "architectures",
    "n_docs",
    "model_type",
    "max_combined_length",
    "retrieval_vector_size",
    "title_sep",
)


def save_parts(folder: Path) -> tuple[str, str]:
    encoder, generator = folder / "encoder", folder / "generator"
    material.random_model(tf.DPRQuestionEncoder, material.question_encoder_config()).save_pretrained(encoder)
    retrieval.question_tokenizer().save_pretrained(encoder)
    material.random_model(
        tf.BartForConditionalGeneration, material.generator_config(), seed=1
    ).save_pretrained(generator)
    retrieval.generator_tokenizer().save_pretrained(generator)
    return str(encoder), str(generator)


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    encoder, generator = save_parts(folder)
    config = lib.RagConfig.from_question_encoder_generator_configs(
        tf.AutoConfig.from_pretrained(encoder),
        tf.AutoConfig.from_pretrained(generator),
        n_docs=2,
        max_combined_length=90,
        retrieval_vector_size=models.DIMENSION,
        **material.save_passages(folder / "data"),
        **material.SPECIAL,
    )
    encoder_tokenizer = tf.AutoTokenizer.from_pretrained(encoder)
    generator_tokenizer = tf.AutoTokenizer.from_pretrained(generator)
    retriever = lib.RagRetriever(
        config, question_encoder_tokenizer=encoder_tokenizer, generator_tokenizer=generator_tokenizer
    )
    model = lib.RagTokenForGeneration.from_pretrained_question_encoder_generator(
        encoder, generator, config=config, retriever=retriever
    )
    tokenizer = lib.RagTokenizer(question_encoder=encoder_tokenizer, generator=generator_tokenizer)
    input_ids = material.question_ids(tokenizer, 2)
    results: dict[str, Any] = {"answers": model.generate(input_ids, num_beams=2, max_length=9)}

    changed = lib.RagModel.from_pretrained_question_encoder_generator(
        encoder, generator, question_encoder_attention_probs_dropout_prob=0.2, generator_dropout=0.3, n_docs=4
    )
    results["changed"] = [
        changed.question_encoder.config.attention_probs_dropout_prob,
        changed.config.generator.dropout,
        changed.config.n_docs,
    ]

    parts = {"model": model, "retriever": retriever, "tokenizer": tokenizer}
    for order in (("model", "retriever", "tokenizer"), ("tokenizer", "retriever", "model")):
        target = folder / "-".join(order)
        target.mkdir()
        for part in order:
            parts[part].save_pretrained(target)
        again = lib.RagTokenForGeneration.from_pretrained(
            target, retriever=lib.RagRetriever.from_pretrained(target)
        )
        saved = json.loads((target / "config.json").read_text())
        results[order[0]] = {
            "answers again": again.generate(input_ids, num_beams=2, max_length=9),
            "tokens": lib.RagTokenizer.from_pretrained(target)("where is rome ?")["input_ids"],
            **{name: saved.get(name) for name in FIELDS},
        }
    return results
