"""The webhook door: who is calling, how big is it, and the 200."""
