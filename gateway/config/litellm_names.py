"""The providers that litellm knows, read from a file inside its wheel without importing litellm (decision 0018)."""

from __future__ import annotations

import importlib.metadata

from gateway.wire import CODEC

_FILE = "litellm/provider_endpoints_support_backup.json"

LITELLM_OPTIONS = ("api_version", "organization", "azure_ad_token", "tenant_id", "client_id", "client_secret")
LITELLM_CLOUDS = ("aws_", "vertex_", "watsonx_", "databricks_")  # options of theirs begin so


def litellm_providers() -> frozenset[str]:
    """Empty where litellm, or its list, is not there."""
    try:
        body = importlib.metadata.distribution("litellm").locate_file(_FILE).read_bytes()  # type: ignore[attr-defined]
        listed = CODEC.loads(body)["providers"]
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset(name for name in listed if isinstance(name, str))
