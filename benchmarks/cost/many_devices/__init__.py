"""A large decoder over many devices: its meshes, and what its compiled step holds and moves."""
