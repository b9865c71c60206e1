"""What a model's predictions for held-out images are worth: figures with intervals, subgroups, and what a guess reaches that
sees no pixel. Plain numpy, and the same on Python 3.8."""
