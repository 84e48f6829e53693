"""Experiment files to start from: ``distillery ls search_spaces`` lists them, ``distillery cp NAME .`` copies one."""
