"""Telemetry: what is shown of the gateway's work. Consumers of frozen events; nothing else ever calls them.

Vocabulary:

- **Event**: one thing that happened, as frozen data (`events.py`). `RequestFinished` carries the whole `Record`.
- **Metrics**: folds events into integers, sends them from a worker to its parent (`take`, `merge`), shows them to
  Prometheus (`metrics.py`).
- **Family**: one metric: name, help, kind, labels, buckets; a row of a table (`families.py`). A **series** is a family
  with one set of label values; a **cell** is what it holds.
- **Label sets**: the values that labels may have, from routes.yaml alone; anything else is `other`, nothing is `none`
  (`labels.py`).
- **Exposition**: the text that a scraper reads, Prometheus or OpenMetrics (`exposition.py`).
- **Log**: one line for each request and reload, as text or JSON (`log.py`, `lines.py`).

Money is nano-USD and time nanoseconds inside, both integers; dollars and seconds appear only in the exposition.
"""
