"""What would keep calls from reaching Mixpanel?"""
