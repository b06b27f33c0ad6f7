"""RagTokenizer: its two parts, its modes, special tokens, decoding, and saving and loading."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from tests.scripts import material
from tests.support import retrieval


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint, config=lib.RagConfig.from_pretrained(checkpoint))
    question, answer = material.QUESTIONS[0], material.ANSWERS[0]
    results: dict[str, Any] = {
        "question": tokenizer(question)["input_ids"],
        "pair": tokenizer([question, "rome"], ["paris", "nile"], padding="max_length", max_length=16).data,
        "parts": [
            tokenizer.question_encoder.tokenize(question),
            tokenizer.generator.tokenize(answer),
            tokenizer.question_encoder.pad_token_id,
            tokenizer.generator.pad_token_id,
        ],
        "current": tokenizer.current_tokenizer is tokenizer.question_encoder,
    }
    tokenizer._switch_to_target_mode()
    results["answer"] = tokenizer(answer)["input_ids"]
    tokenizer._switch_to_input_mode()
    results["question again"] = tokenizer(question)["input_ids"]
    results["decoded"] = [
        tokenizer.decode(results["answer"], skip_special_tokens=True),
        tokenizer.batch_decode([results["answer"]] * 2),
    ]
    results["pad of the generator"] = tokenizer.generator.pad_token_id
    results["pad"] = getattr(tokenizer, "pad_token_id", None)

    made = lib.RagTokenizer(retrieval.question_tokenizer(), generator=retrieval.generator_tokenizer())
    made.save_pretrained(str(folder / "made"))
    results["files"] = sorted(path.name for path in (folder / "made").iterdir())
    again = lib.RagTokenizer.from_pretrained(
        str(folder / "made"), config=lib.RagConfig.from_pretrained(checkpoint)
    )
    results["again"] = [again(question)["input_ids"], again.generator(answer)["input_ids"]]
    return results
