"""The only package that talks: to the API server, and to training pods for their progress."""
