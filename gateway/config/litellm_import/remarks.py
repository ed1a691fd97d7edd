"""What an import has to say: where the meaning differs, and what has no equivalent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

DIFFERS, LOST = "differs", "no equivalent"


class Remark(NamedTuple):
    kind: str  # differs | no equivalent
    path: str  # in LiteLLM's file
    text: str


BREAKER = (
    "breakers open after 5 failures in a row or a 50% error rate and probe before they close; that cannot be set here"
)
STORE = "budgets, limits, breakers and sessions are shared by all workers of a machine without it"
OTLP = "set OTEL_EXPORTER_OTLP_ENDPOINT for traces; metrics are always at /metrics of the operations listener"
VIRTUAL = "keys and teams that LiteLLM keeps in its database are not in this file: make them with `gateway keys create`"

# By section and key. An empty text: what it asks for is so here anyway, or concerns nothing that this gateway has.
SETTINGS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("litellm_settings", "allowed_fails"): (DIFFERS, BREAKER),
    ("litellm_settings", "cooldown_time"): (DIFFERS, BREAKER),
    ("router_settings", "allowed_fails"): (DIFFERS, BREAKER),
    ("router_settings", "cooldown_time"): (DIFFERS, BREAKER),
    ("router_settings", "retry_policy"): (LOST, "retries are a number for each route, whatever the error"),
    ("router_settings", "allowed_fails_policy"): (LOST, BREAKER),
    ("router_settings", "retry_after"): (LOST, "pauses double with full jitter and obey the upstream's Retry-After"),
    ("router_settings", "redis_host"): (LOST, STORE),
    ("router_settings", "redis_port"): (LOST, STORE),
    ("router_settings", "redis_password"): (LOST, STORE),
    ("router_settings", "redis_url"): (LOST, STORE),
    ("router_settings", "cache_responses"): (DIFFERS, "`cache: {ttl: 10m}` of a route, for deterministic requests"),
    ("router_settings", "provider_budget_config"): (LOST, "use `budgets:` with `per: provider`: one limit for each"),
    ("router_settings", "enable_pre_call_checks"): (LOST, ""),
    ("router_settings", "set_verbose"): (LOST, ""),
    ("router_settings", "debug_level"): (LOST, ""),
    ("litellm_settings", "cache"): (DIFFERS, "`cache: {ttl: 10m}` of a route, for deterministic requests only"),
    ("litellm_settings", "cache_params"): (DIFFERS, "the cache is exact-match; semantic caching has no equivalent"),
    ("litellm_settings", "drop_params"): (DIFFERS, "list what a server does not know under `drop:` of the model"),
    ("litellm_settings", "callbacks"): (DIFFERS, OTLP),
    ("litellm_settings", "success_callback"): (DIFFERS, OTLP),
    ("litellm_settings", "failure_callback"): (DIFFERS, OTLP),
    ("litellm_settings", "service_callback"): (LOST, OTLP),
    ("litellm_settings", "redact_user_api_key_info"): (LOST, ""),
    ("litellm_settings", "turn_off_message_logging"): (LOST, ""),  # content is never stored unless asked
    ("litellm_settings", "set_verbose"): (LOST, ""),
    ("litellm_settings", "json_logs"): (DIFFERS, "start with `--log-format json`"),
    ("litellm_settings", "telemetry"): (LOST, ""),
    ("litellm_settings", "upperbound_key_generate_params"): (LOST, VIRTUAL),
    ("litellm_settings", "default_team_settings"): (LOST, "callbacks for each team have no equivalent"),
    ("general_settings", "database_url"): (LOST, VIRTUAL),
    ("general_settings", "store_model_in_db"): (LOST, "models stand in routes.yaml, which is reloaded when saved"),
    ("general_settings", "alerting"): (DIFFERS, "use `webhooks:` here, or Prometheus alerts"),
    ("general_settings", "alerting_threshold"): (LOST, "Prometheus alerts have their own thresholds"),
    ("general_settings", "max_parallel_requests"): (DIFFERS, "use `limits: [{max_in_flight: ...}]`"),
    ("general_settings", "global_max_parallel_requests"): (DIFFERS, "use `gateway serve --max-in-flight`"),
    ("general_settings", "proxy_batch_write_at"): (LOST, ""),
    ("general_settings", "disable_spend_logs"): (LOST, "every request has its row in the ledger"),
    ("general_settings", "background_health_checks"): (LOST, ""),
    ("general_settings", "health_check_interval"): (LOST, ""),
    ("general_settings", "pass_through_endpoints"): (DIFFERS, "use `passthrough:` of a provider"),
}

PARAMS: Mapping[str, tuple[str, str]] = {
    "rpm": (DIFFERS, "limits of a deployment have no equivalent; it is used as the deployment's weight"),
    "tpm": (LOST, "limits on tokens a minute are for callers (`limits:`), not for deployments"),
    "tags": (LOST, "use `match: {tag: ...}` of a route"),
    "max_budget": (LOST, "budgets are for callers, routes or `per: model`: see `budgets:`"),
    "budget_duration": (LOST, ""),
    "drop_params": (DIFFERS, "list what the server does not know under `drop:` of the model"),
    "mock_response": (LOST, "nothing is mocked here"),
    "model_info": (LOST, ""),
    "custom_llm_provider": (LOST, ""),
    "use_in_pass_through": (DIFFERS, "use `passthrough:` of the provider"),
}
"""Of a deployment's `litellm_params`, beyond what is taken over."""

INFO: Mapping[str, str] = {
    "base_model": "prices are not looked up by it: give the model a `price:`, or the name that the price book has",
    "access_groups": "list models under `allow:` of a key",
    "team_id": VIRTUAL,
    "team_public_model_name": VIRTUAL,
}
"""Of a deployment's `model_info`, what is not taken over and can be said better."""
