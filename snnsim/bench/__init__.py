"""Speed and memory side by side with other libraries, each in a process of its own, in turn in one run."""
