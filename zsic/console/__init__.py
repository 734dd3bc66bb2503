"""How the commands look in a terminal: one function a command, which `zsic.cli` imports when the command runs."""
