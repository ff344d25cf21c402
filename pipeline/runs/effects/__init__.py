"""What a run does to the world, one verb a function, by name `verb/subject`.

Every function may be called again after a kill at any moment, or after an answer was lost, and then goes on or finds
that all is done: it asks the platform, the repository and the chain of ownership, never what it remembers. It returns
what the journal is to say of it, and raises FailbackError for what went wrong.
"""
