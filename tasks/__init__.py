"""Prefect tasks, the executor that runs stages as tasks, and the reporter that shows them in Prefect."""
