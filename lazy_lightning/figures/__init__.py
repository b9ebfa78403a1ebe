"""Figures, as pure functions of tables: no figure reads a run, a network or a trainer."""
