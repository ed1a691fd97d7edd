"""Real weights behind a template of our own, served by llama.cpp.

    python -m tests.tool_server PORT TEMPLATE [WEIGHTS]     WEIGHTS: the embedded model's where none are named

The embedded model's own template has no tools. llama.cpp takes TOOLS for Functionary v3.2, whose recipients (`>>>name`)
and opening it expects to the letter, and then holds the model to the tool's schema by a grammar. It takes tool calls
for certain only with `tool_choice: "required"` and `parallel_tool_calls: false`. A base model that was never taught to
chat goes on with ANSWER.
"""

from __future__ import annotations

import sys
import threading

import xllamacpp

from gateway.providers.local import weights

TOOLS = """{# >>>${recipient} #}
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
ANSWER = """{%- for message in messages -%}
{{ 'Answer' if message.role == 'assistant' else 'Question' }}: {{ message.content or '' }}
{% endfor -%}
{%- if add_generation_prompt -%}Answer:{%- endif -%}"""
TEMPLATES = {"tools": TOOLS, "answer": ANSWER, "own": ""}


def main() -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = sys.argv[3] if len(sys.argv) > 3 else str(weights())
    parameters.model_alias = {sys.argv[2]}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(sys.argv[1])
    parameters.n_ctx = 2048
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    # Several threads spin while they wait for each other: slow where cores are few and shared.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.use_jinja = True
    parameters.chat_template = TEMPLATES[sys.argv[2]]
    parameters.ui = False
    server = xllamacpp.Server(parameters)  # lives as long as the name
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main()
