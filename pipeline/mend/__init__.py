"""Finding what is damaged in a repository, naming whom it harms, and mending it."""
