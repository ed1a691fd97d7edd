"""Decisions: plain synchronous code that takes data and returns data.

Vocabulary, in the order a request meets it:

- **Call**: one parsed request; keeps the client's bytes untouched (`call.py`).
- **Principal**: who calls: key, team, user, and what the key may ask for (`call.py`).
- **Task**: what kind of work the call is, how sure we are, and why (`tasks.py`).
- **Model**: an entry under `models:`; **Route**: an entry under `routes:` (`routing.py`).
- **Plan**: the chosen route's **targets** in the order they will be tried, each with its reason, and everything that
  was skipped with the reason it was (`routing.py`).
- **Attempt**: one try of one target. Its end is an outcome: fine, or a failure of some **kind** (`failures.py`).
- **Step**: what to do next: Try, Continue, Wait, Fail (`attempts.py`).
- **Commit**: the first useful content reached the client; nothing can be retried silently after it.
- **Usage**: tokens by type, disjoint; **Price**: what they cost, in integer nano-USD (`usage.py`, `pricing.py`).
- **Record**: everything known about a finished call; ledger rows, metrics and logs are made of it (`record.py`).

Nothing here does I/O, reads a clock, rolls dice, logs, or imports anything but the standard library and
`gateway.errors`: what such code needs to know, it is told. `tests/test_architecture.py` holds it to that.
"""
