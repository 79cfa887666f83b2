"""What each command does: call, print, exit code. Everything heavy is imported by the command that needs it."""
