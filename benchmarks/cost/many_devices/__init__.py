"""Parts of `benchmarks.cost.many_devices`: a large decoder, its meshes, and what its compiled step holds."""
