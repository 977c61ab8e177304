"""Serving state shared by both hosts: sequences, KV blocks, prefix index, instances. Has no clock."""
