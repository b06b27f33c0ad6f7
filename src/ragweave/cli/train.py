"""``ragweave train``: a model on your own questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ragweave.cli.changes import EngineKind, RayAddress, Workers
from ragweave.cli.models import Device, ModelFormulation
from ragweave.cli.searching import DenseWeight, Retrieval
from ragweave.cli.train_retriever import HELP as RETRIEVER_HELP
from ragweave.cli.train_retriever import retriever
from ragweave.cli.training import (
    Config,
    Epochs,
    LearningRate,
    Limit,
    Resume,
    Seed,
    StartingModel,
    check_output,
    read_settings_file,
    trainer_options,
)

_KEEP_BEST = {
    "load_best_model_at_end": True,
    "metric_for_best_model": "exact_match",
    "greater_is_better": True,
}

HELP = """Train question encoder and generator together on questions and answers.

The passages come from a knowledge base, which stays as it is. The folder that is written is a model for --model of
ask and eval. A run that was interrupted goes on from its last checkpoint with --resume.

Examples:

  ragweave train --kb kb --data train.jsonl --dev dev.jsonl --output model

  ragweave train --kb kb --data train.jsonl --output model --freeze question-encoder --lora

  ragweave train --kb kb --data train.jsonl --output model --model my-rag --formulation sequence --epochs 5

  ragweave train --kb kb --data train.jsonl --dev dev.jsonl --output model --epochs 20 --patience 3 --tensorboard

  ragweave train --kb kb --data train.jsonl --output model --end-to-end --refresh-steps 500

  ragweave train --kb kb --data train.jsonl --output model --retrieval dense

  ragweave train --kb kb --data train.jsonl --output model --config trainer.yaml --resume

  ragweave train retriever --kb kb --data train.jsonl --output model
"""

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    kb: Annotated[str | None, typer.Option("--kb", help="Folder or URI of the knowledge base.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="FILE", help="Questions and answers to learn.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the model.")
    ] = None,
    dev: Annotated[
        str | None, typer.Option("--dev", metavar="FILE", help="Questions to evaluate on after every epoch.")
    ] = None,
    model: StartingModel = "embedded",
    formulation: ModelFormulation = None,
    n_docs: Annotated[int, typer.Option(min=1, help="K, passages per question.")] = 5,
    retrieval: Retrieval = None,
    dense_weight: DenseWeight = None,
    freeze: Annotated[
        Literal["question-encoder", "generator"] | None, typer.Option(help="What keeps its weights.")
    ] = None,
    retriever_loss: Annotated[
        Literal["adist", "emdr2", "pdist", "loop"] | None,
        typer.Option("--retriever-loss", help="A loss for the retriever beside the marginal likelihood."),
    ] = None,
    lora: Annotated[
        bool,
        typer.Option("--lora", help="Train a low-rank adapter of the generator, which is merged at the end."),
    ] = False,
    end_to_end: Annotated[
        bool,
        typer.Option(
            "--end-to-end",
            help="Train the document encoder too; the index follows it in the background, as OUTPUT/knowledge-base.",
        ),
    ] = False,
    document_encoder: Annotated[
        str | None,
        typer.Option(
            "--document-encoder",
            help="With --end-to-end, the encoder of the passages (default: KB names it).",
        ),
    ] = None,
    refresh_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --end-to-end, steps between refreshes (default: at the ends of epochs)."
        ),
    ] = None,
    engine: EngineKind = "local",
    workers: Workers = 2,
    ray_address: RayAddress = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --dev, stop when so many epochs bring no better exact match, and keep the best."
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write figures for TensorBoard below --output.")
    ] = False,
    max_answer_length: Annotated[
        int, typer.Option(min=1, help="The longest answer to learn, in tokens.")
    ] = 64,
    epochs: Epochs = 3,
    learning_rate: LearningRate = 3e-5,
    retriever_learning_rate: Annotated[
        float | None,
        typer.Option(
            "--retriever-learning-rate",
            help="Of the encoders; with --lora, 2e-5 beside a --learning-rate of 3e-4 is usual.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions in a step, on each device.")] = 8,
    seed: Seed = 0,
    config: Config = None,
    limit: Limit = None,
    resume: Resume = False,
    device: Device = None,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.console import quiet_libraries, stdout
    from ragweave.errors import ConfigurationError, require_extra
    from ragweave.evaluation.data import check_gold, read_examples
    from ragweave.knowledge.base import KnowledgeBase

    if context.invoked_subcommand is not None:
        return
    if kb is None or data is None or output is None:
        raise ConfigurationError("Give --kb, --data and --output.")
    require_extra("accelerate", "train")
    if tensorboard:
        require_extra("tensorboard", "train")
    if lora and freeze == "generator":
        raise ConfigurationError(
            "--lora trains an adapter of the generator, which --freeze generator keeps: choose one."
        )
    options = trainer_options(
        epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed, device=device
    )
    if patience is not None and dev is None:
        raise ConfigurationError("--patience needs questions to tell by: give them with --dev.")
    # Mistakes in the data are told at once, not after a model was loaded.
    examples = read_examples(data, limit=limit)
    held_out = None if dev is None else read_examples(dev)
    base = KnowledgeBase.open(kb)
    if held_out is not None:
        check_gold(held_out, base)
    check_output(output, resume=resume)
    quiet_libraries()
    from ragweave.training.arguments import RagTrainingArguments

    further = read_settings_file(config, RagTrainingArguments)
    from transformers import EarlyStoppingCallback

    from ragweave.cli.training_progress import show_training
    from ragweave.pipeline.rag_pipeline import RagPipeline
    from ragweave.training.adapters import add_adapter, merge_adapter
    from ragweave.training.trainer import RagTrainer
    from ragweave.types import SearchSettings

    own: dict[str, Any] = {
        "n_docs": n_docs,
        "freeze": freeze,
        "retriever_loss": retriever_loss,
        "retriever_learning_rate": retriever_learning_rate,
        **options,
        "eval_strategy": "no" if held_out is None else "epoch",
        **({"report_to": ["tensorboard"]} if tensorboard else {}),
        "max_answer_length": max_answer_length,
        "end_to_end": end_to_end,
        "document_encoder": document_encoder,
        "refresh_steps": refresh_steps,
        "refresh_engine": engine,
        "refresh_workers": workers,
        "refresh_address": ray_address,
        **({} if patience is None else _KEEP_BEST),
        **further,
    }
    arguments = RagTrainingArguments(output_dir=str(output), **own)
    pipeline = RagPipeline.from_pretrained(
        model,
        knowledge_base=base,
        formulation=formulation,
        search=SearchSettings(retrieval, dense_weight=dense_weight),
        dtype="float32",
        device=device,
    )
    if lora:
        add_adapter(pipeline.model.generator)
    trainer = RagTrainer(
        pipeline,
        arguments,
        train_dataset=examples,
        eval_dataset=held_out,
        callbacks=[] if patience is None else [EarlyStoppingCallback(patience)],
    )
    with show_training(trainer):
        trainer.train(resume_from_checkpoint=resume)
    if lora:
        merge_adapter(pipeline.model.generator)
    trainer.save_model()
    if trainer.is_world_process_zero():
        stdout().print(f"{output}: trained on {len(examples)} questions.", markup=False, soft_wrap=True)


# Imports no more than this module does.
app.command("retriever", help=RETRIEVER_HELP)(retriever)
