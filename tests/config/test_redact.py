"""Secrets by their shapes. Every key here is made up."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.redact import SHOWN, redact, without_secrets
from gateway.config.types import ProviderConfig

LETTERS = "abcDEF0123456789ghiJKL"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{'MIIEpAIBAAKCAQEA7bq+/=' * 40}\n-----END RSA PRIVATE KEY-----"
SECRETS = {
    "openai": f"sk-{LETTERS}",
    "openai project": f"sk-proj-{LETTERS}_{LETTERS}",
    "anthropic": f"sk-ant-api03-{LETTERS}-{LETTERS}",
    "openrouter": f"sk-or-v1-{LETTERS}",
    "stripe": f"sk_live_{LETTERS}",
    "ours": f"omg_{LETTERS}{LETTERS}",
    "groq": f"gsk_{LETTERS}",
    "xai": f"xai-{LETTERS}",
    "hugging face": f"hf_{LETTERS}",
    "aws id": "AKIAIOSFODNN7EXAMPLE",
    "google": f"AIza{LETTERS}{LETTERS}"[:39],
    "github": f"ghp_{LETTERS}{LETTERS}",
    "gitlab": f"glpat-{LETTERS}",
    "slack": f"xoxb-123456789012-{LETTERS}",
    "webhook": f"whsec_{LETTERS}",
    "jwt": f"eyJ{LETTERS}.eyJ{LETTERS}.{LETTERS}",
    "pem": PEM,
    "pgp": PEM.replace("RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK"),
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize(
    "around", ["{}", "use {} please", '"{}",', "key={}", "({})\n", "env:\n{}\nend", "a\t{}", "é{}"]
)
def test_a_secret_goes(secret: str, around: str) -> None:
    text, found = redact(around.format(secret))
    assert found >= 1
    assert secret not in text
    assert max(map(len, set(text.split(SHOWN)))) <= len(around), "nothing of it is left"
    in_json, found = redact(json.dumps({"messages": [{"content": around.format(secret)}]}))
    assert found >= 1
    assert LETTERS not in in_json
    assert "MIIEpAIBAAKCAQEA7bq" not in in_json
    json.loads(in_json)
    nested, _ = redact(json.dumps({"arguments": json.dumps({"text": around.format(secret)})}))
    assert secret not in nested
    assert LETTERS not in nested
    json.loads(json.loads(nested)["arguments"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abcdefghijklmnop0123", f"Authorization: Bearer {SHOWN}"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", f"authorization: basic {SHOWN}"),
        ("postgresql://user:hunter22@db/x", f"postgresql://{SHOWN}@db/x"),
        ("postgresql://user:hunter@22@db/x", f"postgresql://{SHOWN}@db/x"),
        ('{"password": "correct, horse; battery"}', f'{{"password": "{SHOWN}"}}'),
        ('{\\"password\\": \\"correct, {horse}\\", 1}', f'{{\\"password\\": \\"{SHOWN}\\", 1}}'),
        (f'{{"api_key": "sk-{LETTERS}"}}', f'{{"api_key": "{SHOWN}"}}'),
        ("password=correcthorse next", f"password={SHOWN} next"),
        ('{"api_key": "0123456789abcdef"}', f'{{"api_key": "{SHOWN}"}}'),
        ('{\\"client_secret\\": \\"0123456789abcdef\\"}', f'{{\\"client_secret\\": \\"{SHOWN}\\"}}'),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", f"AWS_SECRET_ACCESS_KEY={SHOWN}"),
    ],
)
def test_what_stands_around_it_stays(text: str, shown: str) -> None:
    assert redact(text) == (shown, 1)


@pytest.mark.parametrize("cut", [60, 200, 400])
def test_half_a_private_key_goes_too(cut: int) -> None:
    for half in (PEM[:-cut], PEM[cut:]):
        assert "MIIEpAIBAAKCAQEA7bq" not in redact(f"here: {half}")[0]


@pytest.mark.parametrize(
    "text",
    [
        "Please translate: the secretary keeps the key of the task-force's safe.",
        "sk-learn and scikit-learn; risk-averse; https://example.com:8080/a@b",
        "What is a Bearer token? A password: short",
        '{"model": "gpt-5", "messages": [{"role": "user", "content": "eyJ is how tokens begin"}]}',
        "commit 4bf92f3577b34da6a3ce929d0e0e4736, AKIA is a prefix",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == (text, 0)


@given(st.text())
def test_anything_can_be_read_and_twice_is_once(text: str) -> None:
    once, _ = redact(text)
    assert redact(once)[0] == once


@pytest.mark.parametrize("piece", ["sk-", "A", "-----BEGIN ", "eyJ", "://", "a:", "password", "bearer ", "\\n", "= "])
def test_nobody_can_make_it_slow(piece: str) -> None:
    """A window has 32 KiB or so; the whole must stay far from a second, also where the shapes nearly fit."""
    began = time.thread_time()
    redact(piece * (64 * 1024 // len(piece)))
    assert time.thread_time() - began < 1


def test_what_an_upstream_was_sent_is_hidden_whatever_it_looks_like() -> None:
    headers = {"x-account": "acme", "authorization": "Token open sesame-4711"}
    account = ProviderConfig("up", "openai", "http://up", "correct horse", headers)
    said = f"401: no key 'correct horse', Token open sesame-4711 (sesame-4711), sk-{LETTERS}, for acme"
    assert without_secrets(said, account) == f"401: no key '{SHOWN}', {SHOWN} ({SHOWN}), {SHOWN}, for acme"
    assert without_secrets("503: the model is loading", account) == "503: the model is loading"
    assert without_secrets("503: key", account._replace(api_key="", headers={})) == "503: key"
    longer = account._replace(headers={"x-key": "correct horse battery"})
    assert without_secrets("no correct horse battery", longer) == f"no {SHOWN}"
