"""One file a library, run by path: ``build(task)`` returns a function that does one step, ``versions()`` names it."""
