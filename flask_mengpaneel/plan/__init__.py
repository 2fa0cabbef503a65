"""Which events are there? Those that the app declares: its tracking plan."""
