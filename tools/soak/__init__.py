"""The soak: load with random faults against the real command, and a verdict on all it accepted."""
