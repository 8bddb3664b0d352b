"""Where values come from: AWS's services, AWS's own extension, a local file."""
