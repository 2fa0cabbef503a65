"""What Flask-Mengpaneel costs, beside its peers, measured in one run."""
