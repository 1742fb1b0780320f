"""The little world that LoRA is tried on: a town that speaks, a small transformer, a loop.

It knows nothing of LoRA: what is tried here lies in lora_mini.lab.
"""
