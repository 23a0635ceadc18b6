"""The one transaction: gather what waits, apply the rules, commit, answer."""
