"""Open Model Gateway: routes each OpenAI-API request to a cheap open model or to a closed API, and meters it."""

from importlib.metadata import version

__version__ = version("open-model-gateway")
