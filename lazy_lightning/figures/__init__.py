"""Figures as functions of tables: the curves of a run, or the runs of a sweep, through which arrays are loaded."""
