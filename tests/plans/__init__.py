"""Plans: what they may say, where they are kept, what they wait for."""
