"""``ragweave train retriever``: a retriever on your own questions and passages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragweave.cli.models import Device
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

HELP = """Train the retriever alone, on questions and the passages that answer them.

Contrastive training of the encoder of questions and passages, with the other passages of a batch and those that BM25
finds as negatives. The folder that is written is a model for --model of ask and eval; its knowledge base, embedded
anew, is in OUTPUT/knowledge-base, and the encoder in OUTPUT/document-encoder.

Where the data names no gold passage, the first that BM25 finds with the answer in it is taken.

Examples:

  ragweave train retriever --kb kb --data train.jsonl --output model

  ragweave train retriever --kb kb --data train.jsonl --output model --negatives 3 --batch-size 32 --epochs 5

  ragweave ask --kb model/knowledge-base --model model "Who wrote it?"
"""


def retriever(
    kb: Annotated[str, typer.Option("--kb", help="Folder of the knowledge base.")],
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="Questions and what answers them.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the model.")],
    model: StartingModel = "embedded",
    negatives: Annotated[
        int, typer.Option(min=0, help="Passages of BM25 that do not answer, per question.")
    ] = 1,
    epochs: Epochs = 3,
    learning_rate: LearningRate = 2e-5,
    batch_size: Annotated[
        int, typer.Option(min=2, help="Questions in a step; more of them are more negatives.")
    ] = 16,
    seed: Seed = 0,
    config: Config = None,
    limit: Limit = None,
    resume: Resume = False,
    device: Device = None,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.console import noted_bars, quiet_libraries, stage_bars, stdout
    from ragweave.errors import require_extra
    from ragweave.evaluation.data import check_gold, read_examples
    from ragweave.knowledge.base import KnowledgeBase

    require_extra("sentence_transformers", "train")
    options = trainer_options(
        epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed, device=device
    )
    examples = read_examples(data, limit=limit)
    base = KnowledgeBase.open(kb)
    check_gold(examples, base)
    check_output(output, resume=resume)
    quiet_libraries()
    from sentence_transformers import SentenceTransformerTrainingArguments

    further = read_settings_file(config, SentenceTransformerTrainingArguments)
    from ragweave.cli.training_progress import show_training
    from ragweave.pipeline.rag_pipeline import RagPipeline
    from ragweave.tokenization import RagTokenizer
    from ragweave.training.contrastive import require_one_process, train_retriever
    from ragweave.training.pairs import training_pairs
    from ragweave.training.refresh import DOCUMENT_ENCODER, FOLDER

    require_one_process()
    with noted_bars() as advance:
        job = "Finding passages"
        pairs = training_pairs(
            base,
            examples,
            n_negatives=negatives,
            progress=lambda done: advance(job, len(examples), done, ""),
        )
    pipeline = RagPipeline.from_pretrained(model, knowledge_base=base, dtype="float32", device=device)
    arguments = {**options, **further}
    train_retriever(pipeline.encoder, pairs, output, resume=resume, around=show_training, **arguments)
    pipeline.encoder.save_pretrained(output / DOCUMENT_ENCODER)
    # Loaded anew, so that the knowledge base names the folder and not what the encoder was before.
    encoder = type(pipeline.encoder).from_pretrained(output / DOCUMENT_ENCODER, device=device)
    pipeline.model.config.passage_encoder_fingerprint = encoder.fingerprint
    pipeline.model.save_pretrained(output)
    tokenizers = (pipeline.retriever.question_encoder_tokenizer, pipeline.retriever.generator_tokenizer)
    RagTokenizer(*tokenizers).save_pretrained(output)
    with stage_bars() as progress:
        base.reembed(output / FOLDER, encoder=encoder, resume=resume, progress=progress)
    stdout().print(
        f"{output}: trained on {len(pairs)} of {len(examples)} questions, those with a passage that answers.",
        markup=False,
        soft_wrap=True,
    )
