"""Who is asking? The visitor who made a request, as far as it tells."""
