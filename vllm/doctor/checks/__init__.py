"""One file per check, found by its NAMES. Called by: doctor/examine.py."""
