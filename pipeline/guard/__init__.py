"""What protects a repository from those who may reach its bucket: roles, locks, life-cycle rules, neighbours."""
