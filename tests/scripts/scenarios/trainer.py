"""transformers' Trainer with the default configuration, with ``reduce_loss``, and with a loss per token.

With transformers, the default configuration fails: its loss is a vector, which has no gradient.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from datasets import Dataset
from transformers import Trainer, TrainingArguments

from tests.scripts import material


def examples(tokenizer: Any) -> Dataset:
    questions = tokenizer(list(material.QUESTIONS), padding="max_length", max_length=12)
    answers = tokenizer.generator(list(material.ANSWERS), padding="max_length", max_length=20)
    return Dataset.from_dict(
        {
            "question": list(material.QUESTIONS),
            "input_ids": questions["input_ids"],
            "attention_mask": questions["attention_mask"],
            "labels": answers["input_ids"],
        }
    )


class PerTokenTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = outputs.loss.sum() / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, trainer_class, fields in (
        ("summed", Trainer, {"reduce_loss": True}),
        ("per token", PerTokenTrainer, {}),
        ("default", Trainer, {}),
    ):
        checkpoint = material.save_checkpoint(folder / name, **fields)
        model, tokenizer = material.load(lib, checkpoint)
        data = examples(tokenizer)
        arguments = TrainingArguments(
            output_dir=str(folder / f"{name} run"),
            per_device_train_batch_size=2,
            per_device_eval_batch_size=2,
            max_steps=2,
            learning_rate=1e-3,
            adam_epsilon=1e-4,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = trainer_class(model=model, args=arguments, train_dataset=data, eval_dataset=data)
        try:
            trainer.train()
        except RuntimeError:
            results[name] = "no gradient of a vector"
            continue
        results[name] = {
            "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
            "weights": material.weights(model),
            "evaluation": trainer.evaluate()["eval_loss"],
        }
        trainer.save_model(str(folder / f"{name} trained"))
        again = type(model).from_pretrained(folder / f"{name} trained")
        results[name]["saved weights"] = material.weights(again)
    return results
