"""The life of an execution environment: its clock, its phases, its end."""
