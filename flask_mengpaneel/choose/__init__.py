"""Which way, and why not the others?"""
