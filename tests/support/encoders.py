"""A small encoder with random weights, made here so that no test fetches a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragweave.encoders.text_encoder import TextEncoder

if TYPE_CHECKING:
    from transformers import BertConfig

WORDS = ["a", "the", "of", "is", "capital", "river", "lima", "peru", "ulm", "danube"]


def save_tiny_encoder(folder: Path, *, seed: int = 0, max_length: int = 48) -> Path:
    """Save a BERT of two layers with a WordPiece tokenizer and its sentence-transformers files."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertModel, PreTrainedTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [*"0123456789.,!?#-"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        **{f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep")},
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    BertModel(tiny_bert(len(vocabulary))).save_pretrained(folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    write_json(folder / "modules.json", modules)
    pooling = {
        "word_embedding_dimension": 16,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
    }
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    return folder


def tiny_bert(vocabulary: int, **fields: Any) -> BertConfig:
    """The configuration of a BERT of two layers."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        # Weights of the usual size would make all vectors of a random model point the same way.
        initializer_range=0.5,
        **fields,
    )


def load_tiny_encoder(folder: Path) -> TextEncoder:
    """Load it under a name that does not change with the folder."""
    return TextEncoder.from_pretrained(folder, name="tiny")


def write_json(path: Path, content: object) -> None:
    """Write a small file, and the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
