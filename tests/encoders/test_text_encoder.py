"""TextEncoder: vectors equal those of sentence-transformers, settings come from its files, batches waste little."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, DPRConfig

from ragweave.encoders.pooling import EncoderSettings, read_settings
from ragweave.encoders.text_encoder import TextEncoder, with_title
from ragweave.errors import ConfigurationError, ModelNotFoundError
from tests.support.encoders import load_tiny_encoder, save_tiny_encoder, write_json

TEXTS = [
    "lima is a city",
    "",
    "the river",
    "peru " * 200,
    "ulm lies on the danube. bo lives in ulm",
    "a",
    "?!",
]


@pytest.fixture
def folder(tiny_encoder_path, tmp_path):
    """A copy of the tiny encoder that a test may damage."""
    return shutil.copytree(tiny_encoder_path, tmp_path / "encoder")


def test_settings_come_from_the_sentence_transformers_files(tiny_encoder):
    assert (tiny_encoder.pooling, tiny_encoder.normalize, tiny_encoder.max_length) == ("mean", True, 48)
    assert tiny_encoder.dimension == 16


def test_vectors_equal_those_of_sentence_transformers(tiny_encoder, tiny_encoder_path):
    peer = SentenceTransformer(str(tiny_encoder_path), device="cpu")
    np.testing.assert_allclose(tiny_encoder.encode(TEXTS), peer.encode(TEXTS), atol=1e-6)


def test_order_and_values_do_not_depend_on_the_batches(tiny_encoder):
    one_by_one = np.concatenate([tiny_encoder.encode([text]) for text in TEXTS])
    for batch_tokens in (1, 60, 100_000):
        np.testing.assert_allclose(
            tiny_encoder.encode(TEXTS, batch_tokens=batch_tokens), one_by_one, atol=1e-6
        )


def test_more_texts_than_are_tokenized_at_once(tiny_encoder, monkeypatch):
    whole = tiny_encoder.encode(TEXTS)
    monkeypatch.setattr("ragweave.encoders.text_encoder._TOKENIZE_CHUNK", 2)
    np.testing.assert_allclose(tiny_encoder.encode(TEXTS), whole, atol=1e-6)


def test_titles_stand_in_front(tiny_encoder):
    titled = tiny_encoder.encode(["the capital", "a river"], titles=["peru", ""])
    np.testing.assert_allclose(titled, tiny_encoder.encode(["peru. the capital", "a river"]), atol=1e-6)
    assert with_title("", "text") == "text"


def test_batches_keep_to_the_budget_and_waste_little(tiny_encoder, monkeypatch):
    seen = []
    forward = tiny_encoder._forward

    def spy(input_ids, attention_mask):
        seen.append((input_ids.numel(), int(attention_mask.sum())))
        return forward(input_ids, attention_mask)

    monkeypatch.setattr(tiny_encoder, "_forward", spy)
    texts = ["river " * (1 + i % 40) for i in range(400)]
    tiny_encoder.encode(texts, batch_tokens=256)
    assert max(size for size, _ in seen) <= 256
    assert sum(used for _, used in seen) / sum(size for size, _ in seen) > 0.95


def test_progress_adds_up_to_the_texts(tiny_encoder):
    steps = []
    tiny_encoder.encode(TEXTS, batch_tokens=60, progress=steps.append)
    assert len(steps) > 1
    assert sum(steps) == len(TEXTS)


def test_no_texts(tiny_encoder):
    vectors = tiny_encoder.encode([])
    assert vectors.shape == (0, 16)
    assert vectors.dtype == np.float32


def test_token_count_is_not_cut_off(tiny_encoder):
    assert tiny_encoder.token_count("lima") == 3
    assert tiny_encoder.token_count("lima " * 500) == 502


def test_wrong_arguments_of_encode(tiny_encoder):
    with pytest.raises(ConfigurationError, match="1 titles for 2 texts"):
        tiny_encoder.encode(["a", "b"], titles=["t"])
    with pytest.raises(ConfigurationError, match="batch_tokens is 0"):
        tiny_encoder.encode(["a"], batch_tokens=0)


def test_arguments_win_over_files(tiny_encoder_path):
    encoder = TextEncoder.from_pretrained(tiny_encoder_path, pooling="cls", normalize=False, max_length=10)
    assert (encoder.pooling, encoder.normalize, encoder.max_length) == ("cls", False, 10)
    assert encoder.name == str(tiny_encoder_path)


def test_without_files_the_mean_is_taken_and_not_normalized(folder):
    (folder / "modules.json").unlink()
    encoder = TextEncoder.from_pretrained(folder)
    assert (encoder.pooling, encoder.normalize, encoder.max_length) == ("mean", False, 64)


def test_newer_spelling_of_the_pooling(folder):
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "cls"})
    assert TextEncoder.from_pretrained(folder).pooling == "cls"


@pytest.mark.parametrize(
    "config",
    [{"pooling_mode": "lasttoken"}, {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}],
)
def test_unknown_poolings_are_refused(folder, config):
    write_json(folder / "1_Pooling" / "config.json", config)
    with pytest.raises(ConfigurationError, match="mean, cls"):
        TextEncoder.from_pretrained(folder)


def test_unknown_steps_are_refused(folder):
    write_json(folder / "modules.json", [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}])
    with pytest.raises(ConfigurationError, match="Dense"):
        TextEncoder.from_pretrained(folder)


def test_damaged_settings_are_refused(folder):
    (folder / "modules.json").write_text("[{")
    with pytest.raises(ModelNotFoundError, match=r"modules\.json"):
        TextEncoder.from_pretrained(folder)


def test_missing_model_names_the_path(tmp_path):
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        TextEncoder.from_pretrained(tmp_path / "nowhere")


def test_missing_weights_are_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelNotFoundError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        TextEncoder.from_pretrained(folder)


def test_pooler_without_trained_weights_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if "pooler" not in name},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert TextEncoder.from_pretrained(folder).fingerprint == TextEncoder.from_pretrained(folder).fingerprint
    with pytest.raises(ModelNotFoundError, match="pooler"):
        TextEncoder.from_pretrained(folder, pooling="pooler")


def test_hub_out_of_reach_is_not_taken_for_no_settings(monkeypatch, tiny_encoder_path):
    def unreachable(name, file_name):
        raise OSError("We couldn't connect") from LocalEntryNotFoundError("offline")

    monkeypatch.setattr("ragweave.encoders.pooling.cached_file", unreachable)
    with pytest.raises(ModelNotFoundError, match="connection"):
        read_settings("someone/encoder")


def test_hub_that_has_no_such_file(monkeypatch):
    def absent(name, file_name):
        raise OSError(f"{name} does not appear to have a file named {file_name}.")

    monkeypatch.setattr("ragweave.encoders.pooling.cached_file", absent)
    assert read_settings("someone/encoder") == EncoderSettings()


def test_fingerprint_tells_encoders_apart(tiny_encoder, tiny_encoder_path, tmp_path):
    assert load_tiny_encoder(tiny_encoder_path).fingerprint == tiny_encoder.fingerprint
    others = [
        TextEncoder.from_pretrained(tiny_encoder_path, pooling="cls"),
        TextEncoder.from_pretrained(tiny_encoder_path, normalize=False),
        load_tiny_encoder(save_tiny_encoder(tmp_path / "other", seed=1)),
    ]
    assert len({encoder.fingerprint for encoder in (tiny_encoder, *others)}) == 4


def test_bfloat16_keeps_the_fingerprint_and_nearly_the_vectors(tiny_encoder, tiny_encoder_path):
    encoder = TextEncoder.from_pretrained(tiny_encoder_path, dtype="bfloat16")
    assert encoder.model.dtype == torch.bfloat16
    assert encoder.fingerprint == tiny_encoder.fingerprint
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    cosines = (vectors * tiny_encoder.encode(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.99


def test_unknown_dtype(tiny_encoder_path):
    with pytest.raises(ConfigurationError, match="'auto', 'float32' or 'bfloat16'"):
        TextEncoder.from_pretrained(tiny_encoder_path, dtype="int4")


@pytest.mark.parametrize("kind", ["DPRContextEncoder", "DPRQuestionEncoder"])
def test_dpr_of_both_kinds(tiny_encoder_path, tmp_path, kind):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder_path)
    config = DPRConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    model = getattr(transformers, kind)(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = TextEncoder.from_pretrained(tmp_path)
    assert (encoder.pooling, encoder.normalize) == ("pooler", False)
    with torch.inference_mode():
        expected = model(**tokenizer(TEXTS[0], return_tensors="pt")).pooler_output
    np.testing.assert_allclose(encoder.encode(TEXTS[:1]), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("mean", False), ("cls", False)])
def test_what_is_saved_embeds_alike(tmp_path, tiny_encoder_path, pooling, normalize):
    encoder = TextEncoder.from_pretrained(
        tiny_encoder_path, pooling=pooling, normalize=normalize, max_length=20
    )
    encoder.save_pretrained(tmp_path / "saved")
    again = TextEncoder.from_pretrained(tmp_path / "saved")
    assert (again.pooling, again.normalize, again.max_length) == (pooling, normalize, 20)
    assert again.fingerprint == encoder.fingerprint
    texts = ["The capital of peru.", "a river " * 20]
    np.testing.assert_array_equal(again.encode(texts), encoder.encode(texts))
    other = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(other.encode(texts), encoder.encode(texts), atol=1e-5)


def test_saving_to_a_file_is_refused(tmp_path, tiny_encoder):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="is a file"):
        tiny_encoder.save_pretrained(tmp_path / "file")
