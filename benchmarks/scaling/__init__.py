"""Parts of `benchmarks.scale`: a large decoder, its meshes, and what its compiled step holds."""
