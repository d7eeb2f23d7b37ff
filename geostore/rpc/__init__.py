"""What crosses between processes: messages as values and back, transport, errors."""
