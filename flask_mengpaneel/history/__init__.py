"""Events of the past, out of a file, and ``flask mengpaneel import``."""
