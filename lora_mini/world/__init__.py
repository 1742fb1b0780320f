"""The little world that LoRA is tried on: a town that speaks, a small transformer, a loop."""
