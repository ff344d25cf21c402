"""Bringing a machine home: one verb a file, for any target, by its abilities alone.

A command works on one *place* of one machine at one target. Which it is says its run: `import` for the machine that is
to come home, `verify` for one that is only tried out and removed again. What is there is asked of the platform
(`Importer.find`), never remembered: so every command goes on after a kill, whatever the moment.
"""
