"""What this room tells whoever listens; rooms above it connect when they are ready."""

from django.dispatch import Signal

# What is known of tiles changed, in the sender's transaction: `campaign`. Sender: the model that records it.
labels_arrived = Signal()
