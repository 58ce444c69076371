"""The robustness study: arms, their measures, and the report."""
