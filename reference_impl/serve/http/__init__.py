"""The OpenAI-compatible front door: a FastAPI app over a Gateway (:mod:`reference_impl.serve.http.gateway`). No Ray."""
