"""Encoding workers: in this process, one process per device, or Ray actors."""
