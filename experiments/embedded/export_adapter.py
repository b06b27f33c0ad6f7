"""Convert a checkpoint of `train_adapter` to the adapter in the package: bfloat16, without local paths.

    python -m experiments.embedded.export_adapter CHECKPOINT [--output src/ragweave/pipeline/adapters/smollm2-135m-qa]
    python -m experiments.embedded.export_adapter CHECKPOINT --model FOLDER --kb KB

The second writes the embedded model with this adapter as the folder of a RAG model, for comparisons. Any knowledge
base of the embedded encoder will do.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ragweave import RagPipeline, RagTokenizer
from ragweave.pipeline import embedded

# What peft needs to know; everything else it writes is its own default.
KEPT = (
    "peft_type",
    "task_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "target_modules",
    "layers_to_transform",
    "inference_mode",
)


def save_model(checkpoint: Path, base: Path, folder: Path) -> None:
    """Write the embedded model with the adapter of a checkpoint, merged."""
    from peft import PeftModel

    pipeline = RagPipeline.from_pretrained("embedded", knowledge_base=base, adapter=False, dtype="float32")
    PeftModel.from_pretrained(pipeline.model.generator, str(checkpoint)).merge_and_unload()  # in place
    pipeline.model.save_pretrained(folder)
    retriever = pipeline.retriever
    RagTokenizer(retriever.question_encoder_tokenizer, retriever.generator_tokenizer).save_pretrained(folder)


def main() -> None:
    """Write the adapter's two files, or a whole model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--output", type=Path, default=embedded.ADAPTER)
    parser.add_argument("--model", type=Path, help="write a RAG model here instead")
    parser.add_argument("--kb", type=Path, help="with --model: a knowledge base of the embedded encoder")
    args = parser.parse_args()
    if args.model is not None:
        if args.kb is None:
            parser.error("--model needs --kb")
        save_model(args.checkpoint, args.kb, args.model)
        return

    config = json.loads((args.checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    shipped = {name: config[name] for name in KEPT} | {
        "base_model_name_or_path": embedded.GENERATOR,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }
    weights = load_file(args.checkpoint / "adapter_model.safetensors")
    args.output.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.to(torch.bfloat16) for name, tensor in sorted(weights.items())},
        args.output / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    text = json.dumps(shipped, indent=2) + "\n"
    (args.output / "adapter_config.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
