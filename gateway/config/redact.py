"""Keys and other secrets in a text, by the shapes that their issuers gave them; in linear time: clients write it.

A short list of our own: a scanner like detect-secrets reads files line by line, guesses by entropy, and brings a web
client along. What looks like nothing in particular (a password in prose, a name, a diagnosis) is not found: content is
kept for a short time, by those who want that.
"""

from __future__ import annotations

from gateway.config.patterns import substitute
from gateway.config.types import ProviderConfig

SHOWN = "[redacted]"
_SHORTEST = 8  # letters of a value that is looked for as it is: shorter ones are also words

_ARMOUR = r"[A-Za-z0-9+/=\s\\]"  # base64, its line ends as they are or as JSON writes them
_KEY = r"-----(?:BEGIN|END) [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_ARMOURED = (
    rf"{_KEY}{_ARMOUR}*(?:{_KEY})?",  # PEM, also where its end was cut off
    rf"{_ARMOUR}{{64,}}-----END [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----",  # or its beginning
)
# Texts come as they stand in JSON, where the letter of an escape stands right before what begins a line.
_BEGINS = r"(\b|\\+[bfnrt]|\\+u[0-9A-Fa-f]{4})"
_TOKENS = (
    r"(?:sk|rk|pk)[-_][A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic, DeepSeek, OpenRouter, Stripe
    r"omg_[A-Za-z0-9_-]{20,}",  # our own
    r"(?:gsk_|xai-|pplx-|hf_|r8_|nvapi-|fw_|tgp_v1_)[A-Za-z0-9_-]{20,}",  # Groq, xAI, Perplexity, Hugging Face, ...
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",  # AWS
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_-]{20,}",
    r"(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,})",  # GitHub, GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"whsec_[A-Za-z0-9+/=]{20,}",
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",  # JSON Web Tokens
)
_NAMES = r"(?i:password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|auth[_-]?token|access[_-]?token)"
_NAMED = rf"{_NAMES}(?i:[a-z_]{{0,12}})[\\\"']{{0,4}}\s{{0,4}}[:=]\s{{0,4}}"
_ESCAPE = r"\\[^\"'\\]"
_RULES = (
    rf"()(?:{'|'.join(_ARMOURED)})()",
    rf"{_BEGINS}(?:{'|'.join(_TOKENS)})()",
    r"((?i:bearer|basic) +)[A-Za-z0-9._~+/=-]{16,}()",
    r"(://)[^/\s:@\"']{0,100}:[^/\s\"']{1,200}(@)",  # user and password of a URL, to the last @ of them
    rf"({_NAMED}\\*[\"'])(?:[^\"'\\\[]|{_ESCAPE})(?:[^\"'\\]|{_ESCAPE}){{7,}}()",  # in quotes, whatever it holds
    rf"({_NAMED}[\\\"']{{0,4}})[^\s\"'\\,;}}{{\[\]]{{8,}}()",
)
_SUBSTITUTES = tuple(substitute(pattern, rf"\1{SHOWN}\2") for pattern in _RULES)


def redact(text: str) -> tuple[str, int]:
    """The text without what looks like a secret, and how many there were."""
    found = 0
    for each in _SUBSTITUTES:
        text, count = each(text)
        found += count
    return text, found


def without_secrets(text: str, account: ProviderConfig) -> str:
    """What an upstream said, without what it was sent to know us by, whatever that looks like, and without what looks
    like any other secret. Servers quote the key that they refuse.
    """
    values = (account.api_key, *account.headers.values())
    secrets = {part for value in values for part in (value, value.rpartition(" ")[2])}  # "Bearer" may go before it
    for secret in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, SHOWN)
    return redact(text)[0]
