"""Hydra groups: one folder a kind of thing, one YAML a thing. Data only; read by ``harness.config``."""
