"""How training is started: one process or many, signals, attempts of the workflow."""
