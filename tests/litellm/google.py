"""Google on loopback, as documented: tokens for a service account whose key is made here, and Vertex AI's models.

Sources: developers.google.com/identity/protocols/oauth2/service-account, "HTTP/REST" (the signed assertion, the
answer to it) and docs.anthropic.com/en/api/claude-on-vertex-ai (`anthropic_version`, no `model`), from what is
known of them; cloud.google.com/vertex-ai/generative-ai/docs/reference/rest-rpc and
/partner-models/claude/use-claude (methods, names of models; read 2026-11-26).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.litellm import apis
from tests.replies import http
from tests.upstream import Received, Step

ACCOUNT = "gateway@my-project.iam.gserviceaccount.com"
STRANGER = "stranger@my-project.iam.gserviceaccount.com"
TOKEN = "ya29.a-token-of-google-0123456789"


class Google:
    """What Google answers: a token for a good assertion, and what its models say to whoever has that token."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.assertions: list[dict[str, Any]] = []

    def write(self, file: Path, account: str, base: str) -> None:
        """The file that Google's console makes of a service account's key."""
        how = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        told = {
            "type": "service_account",
            "project_id": "my-project",
            "private_key_id": "k1",
            "private_key": self._key.private_bytes(*how).decode(),
            "client_email": account,
            "token_uri": f"{base}/token",
        }
        file.write_text(json.dumps(told))

    def reply(self, received: Received) -> Iterator[Step]:
        if received.path == "/token":
            yield self._token(received)
        elif received.header("authorization") != f"Bearer {TOKEN}":
            yield http(401, b'{"error": {"code": 401, "message": "no token", "status": "UNAUTHENTICATED"}}')
        elif "/publishers/anthropic/" in received.path:
            yield from apis.anthropic({"type": "text", "text": "Hello from Claude."})(received)
        elif received.path.endswith(":predict"):
            rows = [
                {"embeddings": {"values": [0.25, -0.5], "statistics": {"token_count": 1}}}
                for _ in received.json["instances"]
            ]
            yield http(200, json.dumps({"predictions": rows}).encode())
        else:
            yield from apis.gemini({"text": "Hello "}, {"text": "from Vertex."})(received)

    def _token(self, received: Received) -> bytes:
        form = parse_qs(received.body.decode())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        signed, _, signature = form["assertion"][0].rpartition(".")
        claims: dict[str, Any] = json.loads(_bytes(signed.partition(".")[2]))
        if claims["iss"] != ACCOUNT:
            return http(400, b'{"error": "invalid_grant", "error_description": "Invalid grant: account not found"}')
        self._key.public_key().verify(_bytes(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        self.assertions.append(claims)
        return http(200, json.dumps({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}).encode())


def _bytes(encoded: str) -> bytes:
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
