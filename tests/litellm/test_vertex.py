"""Vertex AI through a real litellm process: tokens, Gemini, Claude, embeddings, as documented (`google.py`)."""

from __future__ import annotations

import pytest

from tests.litellm.google import ACCOUNT, Google
from tests.litellm.test_apis import ASK, events, finish, said
from tests.servers import Gateway
from tests.upstream import Upstream

PATH = "/v1/projects/my-project/locations/europe-west4/publishers"


@pytest.mark.compatible(endpoint="/chat/completions", system="vertex-litellm")
@pytest.mark.parametrize("stream", [False, True])
def test_gemini(gateway: Gateway, google: Google, google_server: Upstream, stream: bool) -> None:
    answer = gateway.chat("vertex-pro", stream=stream, **(ASK if stream else {}))
    if stream:
        streamed = events(answer.text)
        text, usage = said(streamed), streamed[-1]["usage"]
        assert finish(streamed) == ["stop"]
    else:
        assert answer.status_code == 200, answer.text
        text, usage = answer.json()["choices"][0]["message"]["content"], answer.json()["usage"]
    assert text == "Hello from Vertex."
    assert usage["cost"] == pytest.approx((60 * 1.25 + 40 * 0.125 + 33 * 10) / 1e6)
    word = "streamGenerateContent?alt=sse" if stream else "generateContent"
    assert google_server.calls[-1].path == f"{PATH}/google/models/gemini-2.5-pro:{word}"
    claims = google.assertions[0]
    assert (claims["iss"], claims["scope"]) == (ACCOUNT, "https://www.googleapis.com/auth/cloud-platform")


@pytest.mark.compatible(endpoint="/chat/completions", system="vertex-litellm")
@pytest.mark.parametrize("stream", [False, True])
def test_claude(gateway: Gateway, google_server: Upstream, stream: bool) -> None:
    answer = gateway.chat("vertex-claude", stream=stream, **(ASK if stream else {}))
    if stream:
        streamed = events(answer.text)
        text, usage = said(streamed), streamed[-1]["usage"]
    else:
        assert answer.status_code == 200, answer.text
        text, usage = answer.json()["choices"][0]["message"]["content"], answer.json()["usage"]
    assert text == "Hello from Claude."
    assert usage["cost"] == pytest.approx((20 * 3 + 50 * 0.3 + 30 * 3.75 + 12 * 15) / 1e6)
    sent = google_server.calls[-1]
    word = "streamRawPredict?alt=sse" if stream else "rawPredict"
    assert sent.path == f"{PATH}/anthropic/models/claude-sonnet-4-5@20250929:{word}"
    assert (sent.json["anthropic_version"], "model" in sent.json) == ("vertex-2023-10-16", False)


@pytest.mark.compatible(endpoint="/embeddings", system="vertex-litellm", how="whole")
def test_embeddings(gateway: Gateway, google_server: Upstream) -> None:
    answer = gateway.post("/v1/embeddings", json={"model": "vertex-embed", "input": ["one"]})
    assert answer.status_code == 200, answer.text
    assert [row["embedding"] for row in answer.json()["data"]] == [[0.25, -0.5]]
    assert google_server.calls[-1].path == f"{PATH}/google/models/gemini-embedding-001:predict"


def test_a_token_is_asked_for_once_and_not_for_each_call(gateway: Gateway, google: Google) -> None:
    assert gateway.chat("vertex-pro").status_code == 200
    asked = len(google.assertions)
    assert {gateway.chat("vertex-pro").status_code for _ in range(3)} == {200}
    assert len(google.assertions) == asked


def test_an_account_that_google_does_not_know(gateway: Gateway) -> None:
    answer = gateway.chat("stranger")
    assert answer.status_code in (502, 503), answer.text
    assert "account not found" in answer.json()["error"]["message"]
    assert "PRIVATE KEY" not in answer.text + gateway.log
