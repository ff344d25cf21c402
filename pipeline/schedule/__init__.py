"""What of a plan is done by the clock of this host: timers or crontab lines, and what they call."""
