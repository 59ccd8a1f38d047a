"""Figures of runs, of curvature and of studies: functions of a tidy table in one style; no file is read, none known."""
