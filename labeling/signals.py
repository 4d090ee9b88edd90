"""This room's signals; rooms above connect to them in their `ready()`."""

from django.dispatch import Signal

# What is known of tiles changed, in the sender's transaction: `campaign`. Sender: the model that records it.
labels_arrived = Signal()
