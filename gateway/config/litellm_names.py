"""The providers that litellm knows, read from a file inside its wheel without importing litellm (decision 0018)."""

from __future__ import annotations

import importlib.metadata

from gateway.wire import CODEC

_FILE = "litellm/provider_endpoints_support_backup.json"

LITELLM_OPTIONS = ("api_version", "organization", "azure_ad_token", "tenant_id", "client_id", "client_secret")
_GOOGLES = "vertex_ai"  # also `vertex_ai_beta`
LITELLM_CLOUDS = ("aws_", "vertex_", "watsonx_", "databricks_")  # options of theirs begin so


def litellm_providers() -> frozenset[str]:
    """Empty where litellm, or its list, is not there."""
    try:
        body = importlib.metadata.distribution("litellm").locate_file(_FILE).read_bytes()  # type: ignore[attr-defined]
        listed = CODEC.loads(body)["providers"]
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset(name for name in listed if isinstance(name, str))


def lacking(litellm_provider: str) -> str:
    """What litellm needs for a provider and is not installed, and what mends it; empty where nothing is missing.

    Bedrock's signatures need no more: boto3 comes with litellm.
    """
    if not litellm_provider.startswith(_GOOGLES):
        return ""
    try:
        importlib.metadata.distribution("google-auth")
    except importlib.metadata.PackageNotFoundError:
        return "Google's tokens need google-auth, which is not installed: pip install 'open-model-gateway[vertex]'"
    return ""
