"""Figures, as functions of tables: a run's curves, or the runs of a sweep, whose arrays are read through the table."""
