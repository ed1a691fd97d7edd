"""routes.yaml -> Config: `load.load` tells the story, `schema.py` is the file's shape, `types.py` what it becomes.

The way a file goes: text -> data with lines (`yamlfile.py`) -> `${...}` filled in (`interpolate.py`) -> fields that are
not available yet (`later.py`) -> shapes (`schema.py`) and names (`consistency.py`), every problem collected
(`problems.py`) -> the core's rules with prices (`build.py`, `prices.py`, `pricebook.py`, `sheets.py`).
"""

from gateway.config.load import load as load
