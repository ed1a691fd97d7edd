"""The dashboards as code: `scripts/dashboards` writes grafana/dashboards/*.json from here.

One file a dashboard. `panels.py` has the few kinds of panel they are made of, `queries.py` what their queries share.
Figures "over the range" are `increase(...[$__range])` and follow the time picker; trends are rates.
"""
