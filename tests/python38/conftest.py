"""Python 3.8 with the IPU's libraries: build/python38, which the Makefile makes."""

import torch

torch.set_num_threads(1)  # threads of tiny models mostly wait for each other
