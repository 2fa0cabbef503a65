"""Find what would keep calls from reaching Mixpanel."""
