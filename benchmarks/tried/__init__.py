"""Ideas for a cheaper step that were tried: each with its measure, and whether it was kept."""
