"""A subclass of RagTokenForGeneration with its ``forward`` and ``marginalize`` overridden, which also generates.

Papers with another mixture do this. Here each passage's distribution is raised to a power before the sum.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.scripts import material


def model_class(lib: ModuleType) -> Any:
    output_class = material.rag_name(lib, "RetrievAugLMMarginOutput")

    class PoweredRagToken(lib.RagTokenForGeneration):
        power = 0.7

        def marginalize(self, seq_logits, doc_scores, n_docs=None):
            n_docs = n_docs or self.config.n_docs
            by_passage = seq_logits.unflatten(0, (-1, n_docs))  # (B, K, T, V)
            log_probs = self.power * by_passage.log_softmax(-1)
            prior = doc_scores.log_softmax(1)[:, :, None, None]
            return torch.logsumexp(log_probs + prior, dim=1).log_softmax(-1)

        def forward(
            self,
            input_ids=None,
            attention_mask=None,
            encoder_outputs=None,
            decoder_input_ids=None,
            past_key_values=None,
            context_input_ids=None,
            context_attention_mask=None,
            doc_scores=None,
            use_cache=None,
            do_marginalize=None,
            labels=None,
            n_docs=None,
            **kwargs,
        ):
            n_docs = n_docs if n_docs is not None else self.config.n_docs
            outputs = self.rag(
                input_ids=input_ids,
                attention_mask=attention_mask,
                encoder_outputs=encoder_outputs,
                decoder_input_ids=labels if decoder_input_ids is None else decoder_input_ids,
                past_key_values=past_key_values,
                context_input_ids=context_input_ids,
                context_attention_mask=context_attention_mask,
                doc_scores=doc_scores,
                use_cache=False if labels is not None else use_cache,
                n_docs=n_docs,
            )
            loss = None
            if labels is not None:
                log_probs = self.marginalize(outputs.logits, outputs.doc_scores, n_docs)
                loss = -log_probs[:, :-1].gather(-1, labels[:, 1:, None]).squeeze(-1).sum(-1)
            logits = outputs.logits
            if do_marginalize:
                logits = self.marginalize(logits, outputs.doc_scores, n_docs)
            return output_class(
                loss=loss,
                logits=logits,
                doc_scores=outputs.doc_scores,
                past_key_values=outputs.past_key_values,
            )

    return PoweredRagToken


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    model, tokenizer = material.load(lib, checkpoint, cls=model_class(lib))
    input_ids = material.question_ids(tokenizer, 2)
    labels = material.answer_ids(tokenizer, 1)
    outputs = model(input_ids[:1], labels=labels)
    outputs.loss.sum().backward()
    beams = {"num_beams": 3, "num_return_sequences": 2, "max_length": 9}
    return {
        "loss": outputs.loss,
        "gradient": model.question_encoder.question_encoder.bert_model.embeddings.word_embeddings.weight.grad,
        "mixture": model(input_ids, decoder_input_ids=labels.repeat(2, 1), do_marginalize=True).logits,
        "greedy": model.generate(input_ids, max_length=9),
        "beams": model.generate(input_ids, **beams),
        "beams of two passages": model.generate(input_ids, n_docs=2, **beams),
    }
