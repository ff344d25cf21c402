"""A package of somebody else: an importer and a hook that know failback, and that failback does not know."""
