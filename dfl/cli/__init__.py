"""The command line. Nothing is imported here: `configs` and `verbs` must answer without torch."""
