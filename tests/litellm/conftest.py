"""One gateway with a litellm process, which takes seconds to start, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import replies
from tests.litellm.google import ACCOUNT, STRANGER, Google
from tests.servers import Gateway, free_port, until
from tests.upstream import Upstream

KEY = "sk-ant-a-secret-of-the-provider-0123456789"
ROUTES = """
version: 1
providers:
  anthropic:
    dialect: litellm
    litellm_provider: anthropic
    base_url: "@BASE@/anthropic"
    api_key: "${KEY}"
    headers: {x-account: acme}
  gemini: {dialect: litellm, litellm_provider: gemini, base_url: "@BASE@/gemini", api_key: "${KEY}"}
  bedrock:
    dialect: litellm
    litellm_provider: bedrock
    base_url: "@BASE@/bedrock"
    options: {aws_region_name: eu-central-1, aws_access_key_id: AKIDEXAMPLE, aws_secret_access_key: "${KEY}"}
  azure:
    dialect: litellm
    litellm_provider: azure
    base_url: "@BASE@/azure"
    api_key: "${KEY}"
    options: {api_version: 2024-10-21}
  vertex:
    dialect: litellm
    litellm_provider: vertex_ai
    base_url: "@GOOGLE@"
    options:
      vertex_project: my-project
      vertex_location: europe-west4
      vertex_credentials: "${file:@HOME@/account.json}"  # what stands in it; the stranger's is a path
  stranger:
    dialect: litellm
    litellm_provider: vertex_ai
    base_url: "@GOOGLE@"
    options: {vertex_project: my-project, vertex_location: europe-west4, vertex_credentials: "@HOME@/stranger.json"}
  nobody: {dialect: litellm, litellm_provider: anthropic, base_url: "http://127.0.0.1:@DEAD@", api_key: "${KEY}"}
  up: {base_url: "@BASE@/v1"}
models:
  claude:
    provider: anthropic
    model: claude-sonnet-4-5
    price: {input: 3, cached_input: 0.3, cache_write: 3.75, output: 15}
  flash: {provider: gemini, model: gemini-2.5-flash, price: {input: 0.3, cached_input: 0.03, output: 2.5}}
  embed: {provider: gemini, model: gemini-embedding-001, price: unmetered}
  nova: {provider: bedrock, model: anthropic.claude-3-haiku-20240307-v1:0, price: {input: 0.25, output: 1.25}}
  deployed: {provider: azure, model: my-deployment, price: {input: 2, output: 8}}
  vertex-pro: {provider: vertex, model: gemini-2.5-pro, price: {input: 1.25, cached_input: 0.125, output: 10}}
  vertex-claude:
    provider: vertex
    model: claude-sonnet-4-5@20250929
    price: {input: 3, cached_input: 0.3, cache_write: 3.75, output: 15}
  vertex-embed: {provider: vertex, model: gemini-embedding-001, price: unmetered}
  stranger: {provider: stranger, model: gemini-2.5-pro, price: unmetered}
  gone: {provider: nobody, model: claude-sonnet-4-5, price: unmetered}
  plain: {provider: up, model: plain-up, price: unmetered}
@BROKEN_MODELS@
routes:
@BROKEN_ROUTES@
  - {name: pair, match: {model: pair}, use: [claude], fallback: [plain], retries: 0}
  - {name: dead, match: {model: dead}, use: [gone], fallback: [plain], retries: 0}
  - {name: quick, match: {model: quick}, use: [claude], fallback: [plain], retries: 0, timeout: {attempt: 1s}}
"""
# One for each way to fail, since a breaker or a rest would keep the next one from being tried.
BROKEN = 20
BROKEN_MODEL = "  broken-@: {provider: anthropic, model: claude-sonnet-4-5, price: unmetered}\n"
BROKEN_ROUTE = "  - {name: b@, match: {model: b@}, use: [broken-@], fallback: [plain], retries: 0}\n"


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok("From plain.")) as server:
        yield server


@pytest.fixture(scope="session")
def google() -> Google:
    return Google()


@pytest.fixture(scope="session")
def google_server(google: Google) -> Iterator[Upstream]:
    with Upstream(google.reply) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream, google: Google, google_server: Upstream
) -> Iterator[Gateway]:
    base, home = f"http://127.0.0.1:{shared_upstream.port}", tmp_path_factory.mktemp("litellm")
    googles = f"http://127.0.0.1:{google_server.port}"
    google.write(home / "account.json", ACCOUNT, googles)
    google.write(home / "stranger.json", STRANGER, googles)
    routes = ROUTES.replace("@BASE@", base).replace("@DEAD@", str(free_port()))
    routes = routes.replace("@GOOGLE@", googles).replace("@HOME@", str(home))
    routes = routes.replace("@BROKEN_MODELS@", "".join(BROKEN_MODEL.replace("@", str(n)) for n in range(BROKEN)))
    routes = routes.replace("@BROKEN_ROUTES@", "".join(BROKEN_ROUTE.replace("@", str(n)) for n in range(BROKEN)))
    with Gateway(home, routes, env={"KEY": KEY}) as started:
        until("the litellm process", lambda: "the litellm process serves" in started.log or None, timeout=240)
        yield started


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.forget()
    return shared_upstream
