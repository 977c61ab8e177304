"""What ``semiflow validate`` compares with: recorded vLLM runs and vLLM's own scheduler."""
