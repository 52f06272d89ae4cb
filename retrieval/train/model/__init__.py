"""The model under training: creation, parameter groups, LoRA, averaging."""
