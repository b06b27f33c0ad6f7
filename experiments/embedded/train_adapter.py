"""Train the LoRA adapter of the embedded generator: short answers from passages, null answers, follow-ups.

    python -m experiments.embedded.train_adapter --xquad DIR --output ADAPTER

DIR contains passages.jsonl and train.jsonl (id, question, answers, passage). The loss is -log p(y | x, z): of the
answer with the passage z that contains it, of the null answer with one that does not. This is RAG's likelihood
with K = 1. Follow-ups of conversations are made into questions that stand alone. Questions about one passage share a
row (`experiments.embedded.packing`). With ``--together K``, questions are asked of one prompt of K passages instead,
for comparison (docs/results.md). `experiments.embedded.readings` defines the training data and the held-out articles,
which are evaluated every `--evaluate-every` steps. Run the same command again to resume an interrupted run.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rich.progress
import torch
from experiments.embedded.packing import Reading, Row, answer_log_probs, pack
from experiments.embedded.readings import (
    asked,
    factbook_facts,
    factbook_prose,
    in_parts,
    rewritten,
    together,
    with_near_misses,
    written,
    xquad,
)
from transformers import AutoTokenizer, get_linear_schedule_with_warmup
from transformers.utils import logging

from ragweave.encoders.text_encoder import TextEncoder
from ragweave.evaluation.metrics import auroc
from ragweave.pipeline.conversation import rewrite_template
from ragweave.pipeline.embedded import (
    CONTEXT_FIELDS,
    REWRITE_PREFIX,
    generator_path,
    load_generator,
)
from ragweave.retrieval.context_template import ContextTemplate

TEMPLATE = ContextTemplate(
    **{key: CONTEXT_FIELDS[key] for key in ("prefix", "title_sep", "doc_sep", "answer_sep")}
)
REWRITE_TEMPLATE = rewrite_template(REWRITE_PREFIX)

COLUMNS = (
    *rich.progress.Progress.get_default_columns(),
    rich.progress.TextColumn("loss {task.fields[loss]:.2f}"),
)
LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def with_adapter(rank: int, first_layer: int, start: Path | None) -> Any:
    """The embedded generator with an adapter, which alone learns: a fresh one, or one to start from."""
    from peft import LoraConfig, PeftModel, get_peft_model

    generator = load_generator(adapter=False)
    generator.set_attn_implementation("sdpa")
    if start is not None:
        return PeftModel.from_pretrained(generator, start, is_trainable=True)
    return get_peft_model(
        generator,
        LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            target_modules=LINEAR_LAYERS,
            layers_to_transform=list(range(first_layer, generator.config.num_hidden_layers)),
            task_type="CAUSAL_LM",
        ),
    )


@dataclass(frozen=True, slots=True)
class Sources:
    """What there is to read.

    Attributes:
        own: XQuAD's passages and those with questions that they do not answer, all read in every epoch.
        prose: Other passages with questions in the manner of SQuAD.
        facts: Sections of the Factbook, with questions about single facts.
        conversations: Conversations so far, with the question that comes next, all read in every epoch.
    """

    own: list[Reading]
    prose: list[Reading]
    facts: list[Reading]
    conversations: list[Reading]


def epoch(args: argparse.Namespace, sources: Sources, tokenizer: Any, number: int) -> list[list[Row]]:
    """What is read in an epoch, step by step: another part of what was written and of the Factbook each time.

    Rows of like lengths share a step, so that little of it is padding.
    """
    rng = random.Random(f"{args.seed} {number}")  # noqa: S311
    readings = [
        *sources.own,
        *rng.sample(sources.prose, round(args.share * len(sources.prose))),
        *rng.sample(sources.facts, args.facts),
    ]
    shuffled = [Reading(r.title, r.text, tuple(rng.sample(r.pairs, len(r.pairs)))) for r in readings]
    rows = [pack(own, TEMPLATE, tokenizer) for own in in_parts(shuffled, args.questions_per_row)]
    rows += [pack(own, REWRITE_TEMPLATE, tokenizer) for own in sources.conversations]
    rows.sort(key=lambda row: len(row.input_ids) + rng.uniform(0, 20))
    steps: list[list[Row]] = [[]]
    for row in rows:
        if steps[-1] and (len(steps[-1]) + 1) * len(row.input_ids) > args.tokens_per_step:
            steps.append([])
        steps[-1].append(row)
    rng.shuffle(steps)
    return steps


@torch.no_grad()
def evaluate(generator: Any, readings: Sequence[Reading], misses: Sequence[Reading], tokenizer: Any) -> str:
    """What the generator makes of questions that it has not learned from.

    Args:
        generator: The generator.
        readings: Passages with questions that they answer.
        misses: Passages with questions that they do not answer.
        tokenizer: The generator's tokenizer.
    """
    generator.eval()
    empty = [replace(own, pairs=tuple(replace(pair, answer="") for pair in own.pairs)) for own in readings]
    found = [
        [answer_log_probs(generator, [pack(own, TEMPLATE, tokenizer)]) for own in group]
        for group in (readings, empty, misses)
    ]
    generator.train()
    (log_probs, hits), (null_answered, _), (null_missed, _) = (
        tuple(torch.cat(column) for column in zip(*rows, strict=True)) for rows in found
    )
    nulls = torch.cat([null_answered, null_missed])
    told = auroc((-nulls).tolist(), [1] * len(null_answered) + [0] * len(null_missed))
    return (
        f"held out: -log p {-log_probs.mean():.3f}, exact match {hits.float().mean():.3f}, "
        f"AUROC of the null answer {told:.3f}"
    )


class Run:
    """Adapter, optimiser and schedule, with a checkpoint of all three.

    Args:
        adapted: The generator with its adapter, wrapped by peft.
        steps: How many there are to be.
        learning_rate: The largest; it rises for a twentieth of the steps and falls to 0.
        folder: Where checkpoints go.
        bfloat16: Whether to multiply in bfloat16; weights and gradients stay float32.
    """

    def __init__(
        self, adapted: Any, steps: int, learning_rate: float, folder: Path, *, bfloat16: bool = False
    ) -> None:
        self.adapted, self.generator = adapted, adapted.get_base_model()
        self.weights = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=learning_rate, weight_decay=0.01)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, max(steps // 20, 1), steps)
        self.folder = folder
        self.bfloat16 = bfloat16

    def step(self, rows: Sequence[Row]) -> float:
        """Learn from some rows; returns the mean over their questions of -log p(y | x, z)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            loss = -answer_log_probs(self.generator, rows)[0].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return loss.item()

    def save(self, done: int) -> None:
        """Write the adapter, and what is needed to go on."""
        self.adapted.save_pretrained(self.folder / f"step-{done}")
        state = {
            "step": done,
            "adapter": {k: v for k, v in self.generator.state_dict().items() if "lora_" in k},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        partial = self.folder / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "checkpoint.pt")

    def go_on(self) -> int:
        """Read the last checkpoint, if there is one; returns how many steps are done."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        self.generator.load_state_dict(state["adapter"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        return int(state["step"])


def main() -> None:
    """Train, evaluate and save the adapter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--xquad", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--share", type=float, default=0.75, help="share of the prose questions, except XQuAD's, in an epoch"
    )
    parser.add_argument("--facts", type=int, default=100, help="sections of the Factbook in an epoch")
    parser.add_argument("--facts-per-country", type=int, default=12)
    parser.add_argument("--questions-per-row", type=int, default=10)
    parser.add_argument("--tokens-per-step", type=int, default=1600, help="with padding")
    parser.add_argument("--near-misses", type=int, default=4, help="retrieved ones of a passage")
    parser.add_argument(
        "--together", type=int, default=1, metavar="K", help="passages in one prompt, instead of near misses"
    )
    parser.add_argument("--start", type=Path, help="an adapter to start from")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--first-layer", type=int, default=6, help="first layer with an adapter")
    parser.add_argument("--steps", type=int, help="at most so many")
    parser.add_argument(
        "--bfloat16", action="store_true", help="multiply in bfloat16: faster on CPUs that can"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate-every", type=int, default=100, help="steps")
    args = parser.parse_args()

    logging.disable_progress_bar()
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(generator_path())
    encoder = TextEncoder.from_pretrained("embedded")
    held_out = in_parts(xquad(args.xquad, held_out=True), 10)
    known = [*xquad(args.xquad, held_out=False), *asked(args.xquad)]
    prose, facts = [*written(), *factbook_prose()], factbook_facts(args.facts_per_country)
    if args.together > 1:
        held_out, known, prose, facts = (
            together(in_parts(readings, 4), args.together, encoder)
            for readings in (held_out, known, prose, facts)
        )
        misses = [reading for reading in held_out if not reading.pairs[0].answer]
        held_out = [reading for reading in held_out if reading.pairs[0].answer]
    else:
        misses = with_near_misses(held_out, 4, encoder, args.seed)[len(held_out) :]
        known, prose = (
            with_near_misses(readings, args.near_misses, encoder, args.seed) for readings in (known, prose)
        )
    sources = Sources(known, prose, facts, rewritten())
    batches = [step for number in range(args.epochs) for step in epoch(args, sources, tokenizer, number)]
    batches = batches[: args.steps]
    adapted = with_adapter(args.rank, args.first_layer, args.start)
    run = Run(adapted, len(batches), args.learning_rate, args.output, bfloat16=args.bfloat16)
    run.generator.train()
    done = run.go_on()
    with rich.progress.Progress(*COLUMNS) as bar:
        task = bar.add_task("training", total=len(batches), completed=done, loss=float("nan"))
        for number, rows in enumerate(batches[done:], start=done + 1):
            bar.update(task, advance=1, loss=run.step(rows))
            if number % args.evaluate_every == 0 or number == len(batches):
                bar.console.print(f"step {number}: {evaluate(run.generator, held_out, misses, tokenizer)}")
                run.save(number)


if __name__ == "__main__":
    main()
