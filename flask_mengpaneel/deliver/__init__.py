"""How does it reach Mixpanel, and what if not?"""
