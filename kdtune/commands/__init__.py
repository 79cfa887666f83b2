"""The commands: call the library, print the result, return the exit code. Heavy modules are imported where needed."""
