"""`doctor`: what is to be known of a data set before anybody trains on it, from its images or from its labels file alone.

Counts only: no patient's number and no image's name leaves it. Stages: table (and files) -> splits -> floors ->
document -> text and picture; `command.doctor` puts them together.
"""
