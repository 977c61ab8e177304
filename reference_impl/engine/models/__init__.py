"""Models that ship with the engine, their tokenizer, and what made them."""
