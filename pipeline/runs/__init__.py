"""One execution of a plan: its journal in the repository, what comes next, and who may do it."""
