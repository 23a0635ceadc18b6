"""What is done after the 200: each worker is a loop over leased rows of the outbox."""
