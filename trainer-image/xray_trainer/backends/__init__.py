"""Training loops, one module per kind of hardware, and their callbacks; only they import transformers' Trainer and
TrainingArguments."""
