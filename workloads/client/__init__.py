"""An open-loop load client for any OpenAI-compatible server: ``replay`` sends a trace's requests when they are due.

``prompts`` and ``words`` make prompts with the trace's prefix structure, ``ask`` puts them into the API's form,
``load`` sends them over a ``wire``, ``exchange`` reads each answer (``sse``, ``answer``) into a ``record``.
"""
