"""A supervisor's decisions, as OTP takes them: start with `core`."""
