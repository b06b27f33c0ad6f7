"""What a user of transformers' RAG classes writes, from data set to trained model; test_script.py runs it.

Usage: rag_script.py FORMULATION CHECKPOINT PASSAGES.jsonl FOLDER. The last line it writes is JSON.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import RagRetriever, RagSequenceForGeneration, RagTokenForGeneration, RagTokenizer

formulation, checkpoint, passages, folder = sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])
RagForGeneration = {"token": RagTokenForGeneration, "sequence": RagSequenceForGeneration}[formulation]
results = {}

# A knowledge source of one's own: to a FAISS index, to disk, and back.
dataset = load_dataset("json", data_files=passages, split="train", cache_dir=str(folder / "cache"))
dataset_path, index_path = str(folder / "passages"), str(folder / "index.faiss")
dataset.save_to_disk(dataset_path)
dataset.add_faiss_index("embeddings", string_factory="Flat", metric_type=0)
dataset.get_index("embeddings").save(index_path)
retriever = RagRetriever.from_pretrained(
    checkpoint, index_name="custom", passages_path=dataset_path, index_path=index_path, n_docs=3
)
tokenizer = RagTokenizer.from_pretrained(checkpoint)
model = RagForGeneration.from_pretrained(checkpoint, retriever=retriever)
model.config.n_docs = 3
model.eval()

inputs = tokenizer("Where is Paris?", return_tensors="pt")
input_ids = inputs["input_ids"]
labels = tokenizer.generator("Paris is in France.", return_tensors="pt")["input_ids"]

# The loss, in one call.
outputs = model(input_ids=input_ids, labels=labels)
results["loss"] = outputs.loss.mean().item()
results["doc_scores"] = outputs.doc_scores.tolist()

# The same, step by step.
question_hidden_states = model.question_encoder(input_ids)[0]
docs = retriever(input_ids.numpy(), question_hidden_states.detach().numpy(), return_tensors="pt")
doc_scores = torch.bmm(
    question_hidden_states.unsqueeze(1), docs["retrieved_doc_embeds"].float().transpose(1, 2)
).squeeze(1)
outputs = model(
    context_input_ids=docs["context_input_ids"],
    context_attention_mask=docs["context_attention_mask"],
    doc_scores=doc_scores,
    decoder_input_ids=labels,
)
results["doc_ids"] = docs["doc_ids"].tolist()
results["contexts"] = docs["context_input_ids"].tolist()
results["logits"] = outputs.logits.flatten().tolist()

# Training.
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
results["training"] = []
for _ in range(3):
    loss = model(input_ids=input_ids, labels=labels, reduce_loss=True).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    results["training"].append(loss.item())

# Answers.
generated = model.generate(input_ids, num_beams=2, max_length=12)
results["answer"] = generated.tolist()
results["text"] = tokenizer.batch_decode(generated, skip_special_tokens=True)

# To disk and back.
model.save_pretrained(folder / "saved")
tokenizer.save_pretrained(folder / "saved")
retriever.save_pretrained(folder / "retriever")
again = RagForGeneration.from_pretrained(
    folder / "saved", retriever=RagRetriever.from_pretrained(folder / "retriever")
)
again.config.n_docs = 3
tokenizer = RagTokenizer.from_pretrained(folder / "saved")
input_ids = tokenizer("Where is Paris?", return_tensors="pt")["input_ids"]
results["answer again"] = again.generate(input_ids, num_beams=2, max_length=12).tolist()
sys.stdout.write(json.dumps(results) + "\n")
