"""Many runs as one piece of work: which there are, who runs them, where finished ones are kept."""
