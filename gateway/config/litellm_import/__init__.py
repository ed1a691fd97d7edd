"""A LiteLLM proxy's config.yaml -> a routes.yaml, and remarks on what differs or has no equivalent.

Read from LiteLLM's documentation (docs.litellm.ai/docs/proxy/configs, /proxy/reliability, /routing; read 2026-11) and
from the example files in its wheel. litellm itself is not imported. Vocabulary of LiteLLM: a **group** is a
`model_name`, a **deployment** one entry of `model_list`; several deployments may share a group.
"""

from gateway.config.litellm_import.convert import Imported, convert
from gateway.config.litellm_import.remarks import Remark

__all__ = ["Imported", "Remark", "convert"]
