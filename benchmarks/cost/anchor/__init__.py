"""The anchor of L2-SP, in bfloat16 or in the host's memory: what that saves and costs."""
