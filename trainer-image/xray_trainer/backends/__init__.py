"""Training loops, one module per kind of hardware; only they import transformers' Trainer and TrainingArguments."""
