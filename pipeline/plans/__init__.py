"""What is to come home, how, and when: the plan that a run executes."""
