"""The logger that `logger: midnight` in a profile chooses: Snakemake finds plugins by their packages' names.

Every process of Snakemake imports this package, so it must stay light.
"""

from midnight.screen.handler import LogHandler

__all__ = ["LogHandler"]
