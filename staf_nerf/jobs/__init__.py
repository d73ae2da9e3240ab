"""What a command does, from files to files: it reads, calls what computes, shows progress and writes."""
