"""The downstream data sets on disk: what each must hold, what is there, and downloads of those that need no form."""
