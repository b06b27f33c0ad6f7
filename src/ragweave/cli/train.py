"""``ragweave train`` and ``ragweave train retriever``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import ragweave
from ragweave.cli import options
from ragweave.cli.console import count_of, job_bars, print_text, quiet_libraries, stage_bars
from ragweave.errors import ConfigurationError, require_extra
from ragweave.types import Formulation, SearchSettings

_KEEP_BEST = {
    "load_best_model_at_end": True,
    "metric_for_best_model": "exact_match",
    "greater_is_better": True,
}

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    kb: options.OptionalKnowledgeBase = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="Questions with answers to train on.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the model.")
    ] = None,
    dev: Annotated[
        str | None, typer.Option(metavar="FILE", help="Questions to evaluate on after each epoch.")
    ] = None,
    model: options.StartingModel = "embedded",
    formulation: Annotated[
        Formulation | None, typer.Option(help="RAG-Token or RAG-Sequence (default: the model's).")
    ] = None,
    n_docs: Annotated[int, typer.Option(min=1, help="K, passages per question.")] = 5,
    retrieval: options.Retrieval = None,
    dense_weight: options.DenseWeight = None,
    freeze: Annotated[
        Literal["question-encoder", "generator"] | None, typer.Option(help="Part to keep frozen.")
    ] = None,
    retriever_loss: Annotated[
        Literal["adist", "emdr2", "pdist", "loop"] | None,
        typer.Option(help="Retriever loss to add to the marginal likelihood."),
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train a LoRA adapter of the generator; it is merged at the end.")
    ] = False,
    end_to_end: Annotated[
        bool,
        typer.Option(
            "--end-to-end",
            help="Also train the document encoder. The index is refreshed in the background, as "
            "OUTPUT/knowledge-base.",
        ),
    ] = False,
    document_encoder: Annotated[
        str | None,
        typer.Option(help="Document encoder of --end-to-end (default: the one that KB names)."),
    ] = None,
    refresh_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between refreshes of --end-to-end (default: after each epoch)."),
    ] = None,
    engine: options.EngineKind = "local",
    workers: options.Workers = 2,
    ray_address: options.RayAddress = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --dev, stop after this many epochs without a better exact match; keep the best."
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard logs to --output.")
    ] = False,
    max_answer_length: Annotated[
        int, typer.Option(min=1, help="Maximum length of an answer to train on, in tokens.")
    ] = 64,
    epochs: options.Epochs = 3,
    learning_rate: options.LearningRate = 3e-5,
    retriever_learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of the encoders. With --lora, 2e-5 beside --learning-rate 3e-4 is common.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per step and device.")] = 8,
    seed: options.Seed = 0,
    config: options.Config = None,
    limit: options.Limit = None,
    resume: options.Resume = False,
    device: options.Device = None,
) -> None:
    """Train the question encoder and the generator together, on questions and answers.

    The passages come from a knowledge base, which does not change. --output is a model for --model of ask and eval.
    Use --resume to continue an interrupted run from its last checkpoint.

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
    if context.invoked_subcommand is not None:
        return
    if kb is None or data is None or output is None:
        raise ConfigurationError("Give --kb, --data and --output.")
    require_extra("accelerate", "train")
    if tensorboard:
        require_extra("tensorboard", "train")
    if lora and freeze == "generator":
        raise ConfigurationError(
            "--lora trains an adapter of the generator, but --freeze generator freezes it. Choose one."
        )
    if patience is not None and dev is None:
        raise ConfigurationError("--patience needs questions to evaluate on. Give them with --dev.")
    quiet_libraries()  # imports may warn
    from transformers import EarlyStoppingCallback

    from ragweave.cli.training import check_output, read_config, show_training, trainer_options
    from ragweave.evaluation.data import check_gold, read_examples
    from ragweave.training.lora import add_adapter, merge_adapter

    # Wrong data fails before the model is loaded.
    arguments: dict[str, Any] = {
        "n_docs": n_docs,
        "freeze": freeze,
        "retriever_loss": retriever_loss,
        "retriever_learning_rate": retriever_learning_rate,
        **trainer_options(
            epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed, device=device
        ),
        "eval_strategy": "no" if dev is None else "epoch",
        **({"report_to": ["tensorboard"]} if tensorboard else {}),
        "max_answer_length": max_answer_length,
        "end_to_end": end_to_end,
        "document_encoder": document_encoder,
        "refresh_steps": refresh_steps,
        "refresh_engine": engine,
        "refresh_workers": workers,
        "refresh_address": ray_address,
        **({} if patience is None else _KEEP_BEST),
    }
    examples = read_examples(data, limit=limit)
    dev_examples = None if dev is None else read_examples(dev)
    base = ragweave.KnowledgeBase.open(kb)
    if dev_examples is not None:
        check_gold(dev_examples, base)
    check_output(output, resume=resume)
    arguments |= read_config(config, ragweave.RagTrainingArguments)
    training_arguments = ragweave.RagTrainingArguments(output_dir=str(output), **arguments)
    pipeline = options.load_pipeline(
        model,
        knowledge_base=base,
        formulation=formulation,
        search=SearchSettings(retrieval, dense_weight=dense_weight),
        dtype="float32",
        device=device,
    )
    if lora:
        add_adapter(pipeline.model.generator)
    trainer = ragweave.RagTrainer(
        pipeline,
        training_arguments,
        train_dataset=examples,
        eval_dataset=dev_examples,
        callbacks=[] if patience is None else [EarlyStoppingCallback(patience)],
    )
    with show_training(trainer):
        trainer.train(resume_from_checkpoint=resume)
    if lora:
        merge_adapter(pipeline.model.generator)
    trainer.save_model()
    if trainer.is_world_process_zero():
        print_text(f"{output}: trained on {count_of(len(examples), 'question')}.")


@app.command()
def retriever(
    kb: Annotated[str, typer.Option(help="Folder of the knowledge base.")],
    data: Annotated[str, typer.Option(metavar="FILE", help="Questions with answers or passages.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the model.")],
    model: options.StartingModel = "embedded",
    negatives: Annotated[int, typer.Option(min=0, help="Hard negatives from BM25 per question.")] = 1,
    epochs: options.Epochs = 3,
    learning_rate: options.LearningRate = 2e-5,
    batch_size: Annotated[
        int, typer.Option(min=2, help="Questions per step; more questions are more in-batch negatives.")
    ] = 16,
    seed: options.Seed = 0,
    config: options.Config = None,
    limit: options.Limit = None,
    resume: options.Resume = False,
    device: options.Device = None,
) -> None:
    """Train the retriever alone, on questions and passages that answer them.

    Contrastive training of one encoder for questions and passages, with in-batch negatives and hard negatives from
    BM25. --output is a model for --model of ask and eval. It contains the encoder (document-encoder) and the
    knowledge base that was embedded with it (knowledge-base).

    If the data has no gold passage for a question, the first BM25 result that contains an answer is used.

    Examples:
      ragweave train retriever --kb kb --data train.jsonl --output model
      ragweave train retriever --kb kb --data train.jsonl --output model --negatives 3 --batch-size 32 --epochs 5
      ragweave ask --kb model/knowledge-base --model model "Who wrote it?"
    """
    require_extra("sentence_transformers", "train")
    quiet_libraries()  # imports may warn
    from sentence_transformers import SentenceTransformerTrainingArguments

    from ragweave.cli.training import check_output, read_config, show_training, trainer_options
    from ragweave.evaluation.data import check_gold, read_examples
    from ragweave.training.contrastive import require_one_process, train_retriever, training_pairs
    from ragweave.training.index_refresh import DOCUMENT_ENCODER_FOLDER, KNOWLEDGE_BASE_FOLDER

    arguments = trainer_options(
        epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed, device=device
    )
    examples = read_examples(data, limit=limit)
    base = ragweave.KnowledgeBase.open(kb)
    check_gold(examples, base)
    check_output(output, resume=resume)
    arguments |= read_config(config, SentenceTransformerTrainingArguments)
    require_one_process()
    with job_bars() as advance:
        pairs = training_pairs(
            base,
            examples,
            n_negatives=negatives,
            progress=lambda done: advance("Finding passages", len(examples), done, ""),
        )
    pipeline = options.load_pipeline(model, knowledge_base=base, dtype="float32", device=device)
    train_retriever(pipeline.encoder, pairs, output, resume=resume, around=show_training, **arguments)
    pipeline.encoder.save_pretrained(output / DOCUMENT_ENCODER_FOLDER)
    # The encoder is loaded again so that the knowledge base records this folder, not the initial model.
    encoder = type(pipeline.encoder).from_pretrained(output / DOCUMENT_ENCODER_FOLDER, device=device)
    pipeline.model.config.passage_encoder_fingerprint = encoder.fingerprint
    pipeline.model.save_pretrained(output)
    tokenizers = (pipeline.retriever.question_encoder_tokenizer, pipeline.retriever.generator_tokenizer)
    ragweave.RagTokenizer(*tokenizers).save_pretrained(output)
    with stage_bars() as progress:
        base.reembed(output / KNOWLEDGE_BASE_FOLDER, encoder=encoder, resume=resume, progress=progress)
    print_text(
        f"{output}: trained on {len(pairs)} of {len(examples)} questions, those with a passage that answers them."
    )
