"""``ragweave train retriever``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ragweave
from ragweave.cli import options
from ragweave.cli.console import job_bars, print_text, quiet_libraries, stage_bars
from ragweave.errors import require_extra


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
    pipeline = ragweave.RagPipeline.from_pretrained(
        model, knowledge_base=base, dtype="float32", device=device
    )
    train_retriever(pipeline.encoder, pairs, output, resume=resume, around=show_training, **arguments)
    pipeline.encoder.save_pretrained(output / DOCUMENT_ENCODER_FOLDER)
    # Loaded again, so that the knowledge base records this folder as its encoder, not the initial model.
    encoder = type(pipeline.encoder).from_pretrained(output / DOCUMENT_ENCODER_FOLDER, device=device)
    pipeline.model.config.passage_encoder_fingerprint = encoder.fingerprint
    pipeline.model.save_pretrained(output)
    tokenizers = (pipeline.retriever.question_encoder_tokenizer, pipeline.retriever.generator_tokenizer)
    ragweave.RagTokenizer(*tokenizers).save_pretrained(output)
    with stage_bars() as progress:
        base.reembed(output / KNOWLEDGE_BASE_FOLDER, encoder=encoder, resume=resume, progress=progress)
    print_text(
        f"{output}: trained on {len(pairs)} of {len(examples)} questions, those with a passage that answers."
    )
