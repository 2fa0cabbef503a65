"""What clients were given, until it is known that Mixpanel has it."""
