"""A module for each command; __main__ imports the one that is asked for."""
