"""Feature flags and configurations of AWS AppConfig."""
