"""Upstreams: whatever serves models, behind a seam one method wide.

Vocabulary:

- **Provider**: an entry under `providers:` made live: an account or a server, with its URL, key and connections.
- **Dialect**: how it is spoken to; `registry.py` lists the dialects by name.
- **Attempt**: one call to one target; `Provider.open` sends it.
- **Upstream**: the answer under way: status and headers, then the body whole or in pieces (`base.py`).
- **Origin**: scheme, host and port; each has a pool of connections (`http.py`).
- **Exchange**: one request and its answer on one connection, which it owns alone (`http_exchange.py`).
- **Local server**: the embedded open model as a supervised child process (`local.py`).
"""
