"""Conversations: a follow-up is rewritten to stand alone, and then answered like any other question.

The generator rewrites it: an instruct model or a server is prompted to, other models have learned to
(`RagConfig.rewrite_prefix`). The words of the latter come from the conversation, the follow-up and a list of function
words, so that it can neither invent a name nor answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ragweave.modeling.extractive import PassageSpans, SpansOnly
from ragweave.provenance.answers import Answer
from ragweave.retrieval.context_template import ContextTemplate, context_tokens, padded

if TYPE_CHECKING:
    from ragweave.pipeline.answer_pipeline import AnswerPipeline

FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a an the of in on at to for from by with and or but is are was were be been being do does did has have had
        can could will would should may must what when where which who whom whose why how many much long old far often
        it its that this there than as not no more most other another same about into after before during between
        since until any all out per their they his he her she name year number kind time""",
    )
)
"""Words that a rewritten question may have in addition to those of the conversation."""

REWRITE = (
    "Rewrite the follow-up as one question that can be understood without the conversation. Do not answer it. Write "
    "nothing but the question."
)
"""The instruction for a generator that has not learned to rewrite."""

MOST_TOKENS = 48
_MOST_TURNS = 8
_MOST_CHARACTERS = 1000  # of an earlier question or answer


def rewrite_template(prefix: str, end: str | None = None) -> ContextTemplate:
    """The template that joins the conversation so far and a follow-up."""
    end = "\nQuestion that stands alone:" if end is None else end
    return ContextTemplate(prefix=prefix, title_sep="", doc_sep="\nFollow-up: ", answer_sep=end)


def history_text(turns: Sequence[tuple[str, str]]) -> str:
    """Format the conversation so far for the generator.

    Args:
        turns: Questions and answers, the oldest first.
    """
    return "\n".join(f"User: {question.strip()}\nAnswer: {answer.strip()}" for question, answer in turns)


def standalone_question(pipeline: AnswerPipeline, turns: Sequence[tuple[str, str]], question: str) -> str:
    """Rewrite a follow-up as a question that stands alone.

    Args:
        pipeline: Its generator rewrites. If it cannot, the question stays unchanged.
        turns: Questions that stand alone and their answers, oldest first. Only the last eight turns are used, and the
            first 1,000 characters of each question and answer.
        question: The follow-up.

    Raises:
        QuestionError: The question alone is longer than the generator reads.
        GeneratorError: A server fails.
    """
    if not turns:
        return question
    recent = [(asked[:_MOST_CHARACTERS], answer[:_MOST_CHARACTERS]) for asked, answer in turns[-_MOST_TURNS:]]
    rewritten = pipeline.rewrite(recent, question)
    longest = pipeline.encoder.max_length
    fits = longest is None or pipeline.encoder.question_token_count(rewritten) <= longest
    return rewritten if rewritten and fits else question


def rewritten_by(pipeline: AnswerPipeline, turns: Sequence[tuple[str, str]], question: str) -> str:
    """A follow-up, rewritten by a pipeline's model; empty if it cannot, or if the text does not end."""
    config, model = pipeline.config, pipeline.model
    if config.rewrite_prefix is None:
        return ""
    tokenizer, copies = pipeline.retriever.generator_tokenizer, config.rewrite_end is None
    template, limit = rewrite_template(config.rewrite_prefix, config.rewrite_end), config.max_combined_length
    # If the conversation is longer than the generator reads, its beginning is left out.
    while (
        len(turns) > 1
        and len(tokenizer(template.fill("", history_text(turns), question))["input_ids"]) > limit
    ):
        turns = turns[1:]
    history = history_text(turns)
    rows = context_tokens(
        template, [("", history)], [question], tokenizer, limit, causal=config.generator_is_causal
    )
    ids, mask = padded(rows, len(rows[0]), side="right", pad_token=model.rag.special_tokens.pad_or_eos)
    allowed = None
    if copies:
        texts = [question, history, *sorted(FUNCTION_WORDS)]
        eos = model.rag.special_tokens.eos
        allowed = SpansOnly([PassageSpans(texts, tokenizer, eos_token_id=eos, joins=("", ","))])
    with torch.inference_mode():
        sequences = model.generate(
            context_input_ids=torch.tensor(ids, device=model.device),
            context_attention_mask=torch.tensor(mask, device=model.device),
            doc_scores=torch.zeros(1, 1, device=model.device),
            prefix_allowed_tokens_fn=allowed,
            num_beams=1,
            max_new_tokens=MOST_TOKENS,
        )
    if int(sequences[0, -1]) not in model.end_token_ids:
        return ""
    text = str(tokenizer.decode(sequences[0, 1:], skip_special_tokens=True)).strip()
    return f"{text[:1].upper()}{text[1:]}?" if copies else text


@dataclass
class Conversation:
    """Questions that may refer to earlier questions and answers.

    Attributes:
        pipeline: Rewrites and answers.
        turns: Questions that stand alone, with their answers, oldest first.

    Example:
        ```python
        conversation = pipeline.chat()
        conversation.ask("What is the capital of Mongolia?")
        answer = conversation.ask("How many people live there?")
        print(answer.question, answer.answer)
        ```
    """

    pipeline: AnswerPipeline
    turns: list[tuple[str, str]] = field(default_factory=list)

    def standalone(self, question: str) -> str:
        """The question that `ask` would search for."""
        return standalone_question(self.pipeline, self.turns, question)

    def ask(self, question: str, **options: Any) -> Answer:
        """Answer a question, and remember it.

        Args:
            question: The question.
            **options: Arguments of `RagPipeline.stream`.

        Returns:
            The answer; its ``question`` is the standalone one.

        Raises:
            QuestionError: The question is empty, or longer than a model reads.
            ConfigurationError: An option has an invalid value.
        """
        answer = self.pipeline(self.standalone(question), **options)
        self.remember(answer)
        return answer

    def remember(self, answer: Answer) -> None:
        """Let follow-ups refer to an answer."""
        self.turns.append((answer.question, answer.answer))
