"""What both sides of the torch wall agree on: plain Python, imports nothing of ours and nothing heavy."""
