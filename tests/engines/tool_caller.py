"""A tiny model that has learned one search by heart, so that a test can watch a trainer run its tool."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as tf
from tokenizers import processors
from trl.chat_template_utils import qwen3_chat_template

from tests.support.retrieval import byte_level_bpe

QUERY, ANSWER = "capital of Peru", "Lima"


def save_tool_caller(folder: str, question: str, search: Callable[[str], str]) -> None:
    """Train a model to call ``search`` for a question and to answer then, and save it with its tokenizer."""
    tokenizer = byte_level_bpe((qwen3_chat_template, search(QUERY)))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"  # noqa: S105
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.chat_template = qwen3_chat_template
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tools=[search], add_generation_prompt=True, tokenize=False
    )
    call = f'<tool_call>\n{{"name": "search", "arguments": {{"query": "{QUERY}"}}}}\n</tool_call><|im_end|>'
    returned = f"\n<|im_start|>user\n<tool_response>\n{search(QUERY)}\n</tool_response><|im_end|>\n"
    parts = [asked, call, f"{returned}<|im_start|>assistant\n", f"{ANSWER}<|im_end|>"]
    rows = [tokenizer(part)["input_ids"] for part in parts]
    ids = torch.tensor([[token for row in rows for token in row]])
    labels = torch.tensor(
        [[token if own % 2 else -100 for own, row in enumerate(rows) for token in row]]
    )  # what the model says
    torch.manual_seed(0)
    model = tf.Qwen3ForCausalLM(
        tf.Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(300):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 1e-3:
            break
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
