"""The embedded model's weights behind a template that llama.cpp reads tool calls from: real ones, of real JSON.

The model's own template has no tools. llama.cpp takes this one for Functionary v3.2, whose recipients (`>>>name`) and
opening it expects to the letter, and then holds the model to the tool's schema by a grammar. It takes tool calls for
certain only with `tool_choice: "required"` and `parallel_tool_calls: false`.
"""

from __future__ import annotations

import sys
import threading

import xllamacpp

from gateway.providers.local import weights

TEMPLATE = """{# >>>${recipient} #}
{%- if tools -%}
<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.role == 'assistant' %}>>>all
{% endif %}{{ message.content or '' }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|start_header_id|>assistant<|end_header_id|>

>>>{%- endif -%}"""


def main() -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights())
    parameters.model_alias = {"tools"}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(sys.argv[1])
    parameters.n_ctx = 2048
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.use_jinja = True
    parameters.chat_template = TEMPLATE
    parameters.ui = False
    server = xllamacpp.Server(parameters)  # lives as long as the name
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main()
