"""Which parallelism, and how many instances, should prefill and decode get? DistServe's search on our simulator."""
