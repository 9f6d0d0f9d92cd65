"""What reads partitions, in this process or in one of its own: neither needs Keras or a backend."""
