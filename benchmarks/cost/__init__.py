"""What DTNH costs: an update, a training step, many devices, the anchor, an accelerator."""
