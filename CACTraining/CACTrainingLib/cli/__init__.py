"""The command line of CAC: scoring's commands, and those of training and studies."""
