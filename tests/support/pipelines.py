"""A whole small RAG model in a folder, and a knowledge base that it can answer from."""

from __future__ import annotations

from pathlib import Path

import ragweave
from ragweave.encoders.text_encoder import TextEncoder
from tests.support.encoders import load_tiny_encoder
from tests.support.models import generator_config, randomise
from tests.support.retrieval import generator_tokenizer

DOCUMENTS = {
    "peru.txt": "Lima is the capital of Peru. The Andes run through it.",
    "kenya.txt": "Nairobi is the capital of Kenya. Its coast lies on the Indian Ocean.",
    "chile.txt": "Santiago is the capital of Chile. It is a long country.",
}


def save_rag_model(folder: Path, encoder_path: Path, formulation: str = "token", kind: str = "bart") -> Path:
    """Save a RAG model with random weights and its tokenizers, its question encoder that of ``encoder_path``."""
    encoder = load_tiny_encoder(encoder_path)
    tokenizer = generator_tokenizer()
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    generator = generator_config(kind, vocab_size=len(tokenizer), **special)
    config = ragweave.RagConfig.from_question_encoder_generator_configs(
        encoder.model.config,
        generator,
        n_docs=2,
        max_combined_length=100,
        retrieval_vector_size=encoder.dimension,
        question_encoder_pooling=encoder.pooling,
        question_encoder_normalize=encoder.normalize,
        doc_score_scale=3.0,
    )
    name = {"token": "RagTokenForGeneration", "sequence": "RagSequenceForGeneration"}[formulation]
    model = getattr(ragweave, name)(config, question_encoder=encoder.model)
    randomise(model.generator, seed=0)
    model.save_pretrained(folder)
    ragweave.RagTokenizer(encoder.tokenizer, tokenizer).save_pretrained(folder)
    return folder


def build_knowledge_base(
    folder: Path, encoder_path: Path, documents: dict[str, str] = DOCUMENTS, *, named: bool = True
) -> Path:
    """A knowledge base of documents below a folder; if not ``named``, it can load its encoder itself."""
    sources = folder / "documents"
    sources.mkdir()
    for name, text in documents.items():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_text(text, encoding="utf-8")
    encoder = load_tiny_encoder(encoder_path) if named else TextEncoder.from_pretrained(encoder_path)
    return ragweave.KnowledgeBase.build([sources], folder / "kb", encoder=encoder).path
