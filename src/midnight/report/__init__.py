"""From score records to tables, figures and one self-contained page."""
