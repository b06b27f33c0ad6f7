"""Generators with an encoder (BART, T5, Pegasus, mBART, ...): the encoder reads the context."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from ragweave.encoders.linear import fast_linear
from ragweave.modeling.attention import share_context_keys
from ragweave.modeling.caches import MixtureCache
from ragweave.modeling.contexts import EncodedContexts, context_ends, length_groups, trim_right
from ragweave.modeling.generators import Decoded, DecodeOptions, head_input


class Seq2SeqAdapter:
    """Reads contexts with the encoder; decodes with cross attention to its states.

    Args:
        generator: Any seq2seq model of transformers with a language-model head.
    """

    def __init__(self, generator: PreTrainedModel) -> None:
        self.generator = generator

    def read(
        self,
        context_input_ids: Tensor,
        context_attention_mask: Tensor,
        *,
        reuse: bool,
        options: DecodeOptions,
    ) -> EncodedContexts:
        """Encode B*K contexts; see `GeneratorAdapter.read`. Reading ahead costs nothing extra here.

        Contexts of like length are encoded together, so that little of the work is padding.
        """
        # Every group has a gradient as large as the embeddings of its own, which costs what padding would.
        embeddings = self.generator.get_input_embeddings().weight
        trained = torch.is_grad_enabled() and embeddings.requires_grad
        shown = options.output_attentions or options.output_hidden_states
        groups = length_groups(context_ends(context_attention_mask), whole=trained or shown)
        encoder, columns = self.generator.get_encoder(), context_input_ids.shape[1]
        outputs = []
        with fast_linear(self.generator):
            for rows in groups:
                ids, mask = trim_right(context_input_ids[rows], context_attention_mask[rows])
                output = encoder(
                    input_ids=ids,
                    attention_mask=mask,
                    output_attentions=options.output_attentions,
                    output_hidden_states=options.output_hidden_states,
                    return_dict=True,
                )
                outputs.append(output)
        parts = [own.last_hidden_state for own in outputs]
        states = torch.cat([pad(part, (0, 0, 0, columns - part.shape[1])) for part in parts])
        return EncodedContexts(
            attention_mask=context_attention_mask,
            last_hidden_state=states[torch.cat(groups).argsort()] if len(groups) > 1 else states,
            hidden_states=outputs[0].hidden_states,  # asked for of one group only
            attentions=outputs[0].attentions,
        )

    def decode(
        self,
        contexts: EncodedContexts,
        decoder_input_ids: Tensor,
        *,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        options: DecodeOptions,
    ) -> Decoded:
        """Run the decoder over R rows per context, which share its keys; see `GeneratorAdapter.decode`."""
        times = decoder_input_ids.shape[0] // len(contexts)
        shared = times > 1 and share_context_keys(self.generator)
        states, mask = contexts.repeated_states(1 if shared else times)
        head = self.generator.get_output_embeddings()
        with head_input(head, options.logits_at), fast_linear(self.generator):
            output = self.generator(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=mask,
                decoder_input_ids=decoder_input_ids,
                decoder_attention_mask=decoder_attention_mask,
                past_key_values=past_key_values,
                use_cache=options.use_cache,
                output_attentions=options.output_attentions,
                output_hidden_states=options.output_hidden_states,
                return_dict=True,
            )
        return Decoded(
            logits=output.logits,
            past_key_values=output.past_key_values,
            hidden_states=output.decoder_hidden_states,
            attentions=output.decoder_attentions,
            cross_attentions=output.cross_attentions,
        )

    def new_cache(self, *, n_questions: int, n_docs: int) -> MixtureCache:
        """An empty cache; see `GeneratorAdapter.new_cache`."""
        return MixtureCache(DynamicCache(), n_questions=n_questions, n_docs=n_docs)
