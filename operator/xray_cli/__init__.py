"""`kubectl xray`: the operator's command line. It stands on the operator's core; the operator imports nothing of it."""
